"""The model card of a saved pipeline: README.md in its folder or repository."""

from __future__ import annotations

from collections.abc import Collection

from .hub import HUB_ID
from .table import Release

PAPER = "https://arxiv.org/abs/2410.22901"
TEXT = """# {name}

A pipeline of [HelloMeme]({paper}): a portrait takes over the expression and the head pose of another face.
{made_from}

```python
from hellomeme import HelloMemePipeline, Reenactor

reenactor = Reenactor(HelloMemePipeline.from_pretrained("{name}"))
reenactor.set_reference("portrait.png")
reenactor.image("driver.png").picture.save("result.png")
```

| | |
|---|---|
| expression | {expression} |
| pictures | {size} |
| clips | {clips} |

Use it on your own face, or with the consent of the person shown, and say that a result is AI-generated.
"""
EXPRESSIONS = {
    "drive_coeff": "51 ARKit coefficients",
    "pd_fpg": "emotion codes, read from the driver's pixels",
}


def model_card(
    name: str, row: Release | None, base: str | None, expression_types: Collection[str], has_motion: bool
) -> str:
    """The card's Markdown, with the metadata that the hub reads.

    name: of the repository or folder. row, base: None where they are not known. expression_types, has_motion:
    of the pipeline.
    """
    from huggingface_hub import ModelCardData

    own_base = row is not None and base in (None, row.base.elsewhere)
    data = ModelCardData(
        license=row.license if own_base else "other",
        base_model=base if base and HUB_ID.fullmatch(base) else None,
        library_name="diffusers",
        pipeline_tag="image-to-image",
        tags=["hellomeme", "face-reenactment"],
    )
    made_from = f"Release: {row.title}." if row is not None else ""
    if not own_base:
        made_from += f" The base model is {base or 'unknown'}: its licence holds for this repository, too."
    text = TEXT.format(
        name=name,
        paper=PAPER,
        made_from=made_from.strip(),
        expression="; ".join(EXPRESSIONS[kind] for kind in sorted(expression_types)),
        size=f"{row.size} x {row.size} px" if row is not None else "as the base model draws them",
        clips="frames are drawn together" if has_motion else "each frame is drawn alone",
    )
    return f"---\n{data.to_yaml()}\n---\n\n{text}"
