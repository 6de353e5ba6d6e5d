// Runs once when the page has loaded. Adds what Gradio 6.31 leaves out, and what `js` of events calls.
() => {
  // Gradio's example pictures have no name for a screen reader: they get that of their file, which is part of
  // the address of a thumbnail.
  const unnamed = "button.gallery-item:not([aria-label]) img";
  const nameExamples = () => document.querySelectorAll(unnamed).forEach(picture => {
    const name = picture.src.match(/^data:[^,]*;name=([^;,]*)/)?.[1];
    if (name) picture.closest("button").setAttribute("aria-label", decodeURIComponent(name));
  });
  new MutationObserver(nameExamples).observe(document.body, {childList: true, subtree: true});
  nameExamples();

  // Gradio's sliders fire `release` for a pointer, but not for a key.
  document.addEventListener("keyup", event => {
    if (event.target.matches("#sliders input[type=range]"))
      event.target.dispatchEvent(new PointerEvent("pointerup", {bubbles: true}));
  });

  // Gradio does not paste pictures with the keyboard. They go into the picture input under the pointer, the
  // one with the focus, or else the first of the tab.
  document.addEventListener("paste", event => {
    if (event.target.matches("input, textarea")) return;
    if (event.clipboardData.types.includes("text/plain")) return;
    const picture = [...event.clipboardData.files].find(file => file.type.startsWith("image/"));
    const visible = [...document.querySelectorAll(".takes-picture")].filter(place => place.offsetParent);
    const place = visible.find(place => place.matches(":hover"))
      ?? visible.find(place => place.contains(document.activeElement)) ?? visible[0];
    const input = place?.querySelector("input[type=file]");
    if (!picture || !input) return;
    const files = new DataTransfer();
    files.items.add(picture);
    input.files = files.files;
    input.dispatchEvent(new Event("change", {bubbles: true}));
  });

  // Gradio refuses a clip as a picture in words of its own.
  const refuseClips = event => {
    const files = [...(event.dataTransfer ?? event.target).files ?? []];
    const isClip = files.some(file => file.type.startsWith("video/"));
    if (!isClip || !event.target.closest?.(".takes-picture")) return;
    event.preventDefault();
    event.stopImmediatePropagation();
    document.querySelector("#refuse-clip").click();
  };
  for (const kind of ["change", "drop"]) document.addEventListener(kind, refuseClips, true);

  window.helloMeme = {
    // Scrolls to the result of the Image tab, once that tab is open. On a phone the tab is longer than the
    // screen.
    showResult() {
      setTimeout(() => document.querySelector("#result").scrollIntoView({block: "center"}), 300);
    },
  };
}
