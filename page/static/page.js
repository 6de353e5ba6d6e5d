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
    if (event.target.matches("input[type=range]") && event.key !== "Tab")
      event.target.dispatchEvent(new PointerEvent("pointerup", {bubbles: true}));
  });

  // Gradio does not paste pictures with the keyboard. They go into the picture input under the pointer, the
  // one with the focus, or else the first that is seen: the portrait.
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

  // Gradio's icon for a file removes what is there, or does nothing. It opens the choice of a file.
  document.addEventListener("click", event => {
    const block = event.target.closest?.('[data-testid="source-select"] > button:first-child')?.closest(".block");
    if (!block) return;
    const choose = () => {
      const input = block.querySelector("input[type=file]");
      if (input) input.value = "";
      input?.click();
    };
    if (!block.querySelector("input[type=file]") || block.querySelector("video")) {
      setTimeout(choose, 200);  // once Gradio has put the camera away, or a clip, with which there is no input
      return;
    }
    event.stopPropagation();
    choose();
  }, true);

  // Gradio says Record where the camera starts, beside the button that records, and has no Chinese for what
  // opens the camera. The words are those of hidden buttons.
  const rename = (place, isMeant, button) => {
    const words = document.querySelector(button)?.textContent.trim();
    document.querySelectorAll(place).forEach(parent => parent.childNodes.forEach(node => {
      const text = node.nodeType === Node.TEXT_NODE ? node.data.trim() : "";
      if (words && text && text !== words && isMeant(text)) node.data = ` ${words}`;
    }));
  };
  const nameCamera = () => {
    rename('#live-camera .icon-with-text:has([title="start recording"])', () => true, "#word-start");
    rename(":has(> .icon-wrap)", text => text === "Click to Access Webcam", "#word-camera");
  };
  new MutationObserver(nameCamera).observe(document.body, {childList: true, subtree: true});
  nameCamera();

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

  // Which inputs a result belongs to, with which one was asked for last, and which are chosen: texts, by the id
  // of the result's element. A result of other inputs than the chosen ones is dimmed.
  const drawn = {}, asked = {}, chosen = {}, runs = {};
  const text = values => JSON.stringify(values.map(value => value?.path ?? value));
  const isOutdated = id => drawn[id] !== chosen[id];
  const dim = id => document.getElementById(id)?.toggleAttribute("data-outdated", isOutdated(id));

  // Stop can be pressed while something runs.
  const enableStop = () => document.querySelectorAll("button.stops").forEach(button => {
    button.disabled = !Object.values(runs).some(count => count > 0);
  });
  new MutationObserver(enableStop).observe(document.body, {childList: true, subtree: true});

  window.helloMeme = {
    // The result was set together with these inputs.
    set(id, values) {
      drawn[id] = asked[id] = chosen[id] = text(values);
      dim(id);
    },
    // The inputs have changed.
    chosen(id, values) {
      chosen[id] = text(values);
      dim(id);
    },
    // A run begins, with these inputs, or with those that were chosen last.
    asked(id, values) {
      asked[id] = values ? text(values) : chosen[id];
      this.began(id);
    },
    // A run begins.
    began(id) {
      runs[id] = (runs[id] ?? 0) + 1;
      enableStop();
    },
    // A result is there, of the inputs with which it was asked for.
    drawn(id) {
      drawn[id] = asked[id];
      dim(id);
    },
    // A run failed. Returns the text of the line about the result.
    failed(id) {
      drawn[id] = null;
      dim(id);
      return "";
    },
    // A run ended, with or without a result.
    ended(id) {
      runs[id] -= 1;
      enableStop();
    },
    // Whether the result is of other inputs than the chosen ones, and will stay so.
    isOutdated(id) { return isOutdated(id) && !(runs[id] && asked[id] === chosen[id]); },
    // Downloads a file that an event has written.
    download(file) {
      const link = Object.assign(document.createElement("a"), {href: file.url, download: file.orig_name});
      link.click();
    },
    // Scrolls to the result of the Image tab, once that tab is open. On a phone the tab is longer than the
    // screen.
    showResult() {
      setTimeout(() => document.querySelector("#result-view").scrollIntoView({block: "center"}), 300);
    },
  };
}
