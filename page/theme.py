"""How the page looks: Gradio's Soft theme in the colours of the pose square, with system fonts. Style, script
and header are files in `static`."""

from __future__ import annotations

from pathlib import Path

import gradio as gr

from .i18n import I18N, translate

STATIC = Path(__file__).resolve().parent / "static"

THEME = gr.themes.Soft(
    primary_hue=gr.themes.colors.fuchsia,
    secondary_hue=gr.themes.colors.blue,
    neutral_hue=gr.themes.colors.slate,
    radius_size=gr.themes.sizes.radius_lg,
    # System fonts: nothing is downloaded
    font=[
        "Avenir Next",
        "Segoe UI",
        "Roboto",
        "Noto Sans",
        "PingFang SC",
        "Microsoft YaHei",
        "DejaVu Sans",
        "sans-serif",
    ],
    font_mono=["SF Mono", "Consolas", "DejaVu Sans Mono", "monospace"],
).set(
    body_background_fill="*neutral_50",
    body_background_fill_dark="*neutral_950",
    block_border_width="1px",
    block_border_color="*neutral_200",
    block_border_color_dark="*neutral_800",
    body_text_color_subdued="*neutral_500",
    body_text_color_subdued_dark="*neutral_400",
    block_label_background_fill="*background_fill_primary",
    block_label_background_fill_dark="*background_fill_primary",
    block_label_text_color="*neutral_700",
    block_label_text_color_dark="*neutral_200",
    block_title_background_fill="none",
    block_title_background_fill_dark="none",
    block_title_text_color="*neutral_700",
    block_title_text_color_dark="*neutral_200",
    block_title_padding="0",
    button_primary_background_fill="*primary_600",
    button_primary_background_fill_hover="*primary_700",
    button_primary_background_fill_dark="*primary_600",
    button_primary_background_fill_hover_dark="*primary_700",
    slider_color="*primary_600",
    checkbox_border_color="*neutral_400",
    checkbox_border_color_dark="*neutral_500",
    checkbox_label_background_fill_selected="*primary_100",
    checkbox_label_background_fill_selected_dark="*primary_900",
    checkbox_label_text_color_selected="*neutral_900",
    checkbox_label_text_color_selected_dark="*neutral_50",
)
LOOKS = {
    "theme": THEME,
    "css_paths": STATIC / "page.css",
    "favicon_path": STATIC / "favicon.png",
    "i18n": I18N,
    "footer_links": ["api", "settings"],
}


def header() -> str:
    """The HTML at the top of the page, with its sentence in the visitor's language."""
    html = (STATIC / "header.html").read_text(encoding="utf-8")
    sentence = html[html.index("<p>") + 3 : html.index("</p>")]
    return html.replace(sentence, str(translate(sentence)))


def script() -> str:
    """The JavaScript function that the browser calls when the page has loaded."""
    return (STATIC / "page.js").read_text(encoding="utf-8")
