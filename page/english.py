"""Plain words for the terms of the paper, which texts and sentences of the command line hold, too."""

ENGLISH = {
    "0 keeps the reference's own expression, 1 is the driver's, above 1 exaggerates.": (
        "0 keeps the portrait's own expression, 1 copies the other face, above 1 exaggerates."
    ),
    "0 keeps the reference's own head pose, 1 is the driver's, above 1 turns further.": (
        "0 keeps the head as in the portrait, 1 copies its turn, above 1 turns further."
    ),
    "Adds the driver's changes to the reference's own pose instead of copying the pose.": (
        "Adds what changes in the clip to the portrait's own face, instead of copying the face as it is."
    ),
    "Denoising steps: more are slower and finer.": "More steps are slower and finer.",
    "Driver, aligned": "The face, aligned",
    "Face in the driver": "Which face to copy",
    "Face in the reference": "Which face of the portrait",
    "How far the head moves about the picture with the driver's; only clips move.": (
        "How far the head moves about the picture as in the clip."
    ),
    "How strongly reference, pose and prompt steer; 1 switches guidance off and is twice as fast.": (
        "How strongly portrait, face and prompt steer; 1 switches guidance off and is twice as fast."
    ),
    "Reference, aligned": "The portrait, aligned",
    "Restyle the reference": "Restyle the portrait",
    "Seconds into the driver at which to begin; frames then follow each other.": (
        "Seconds into the clip at which to begin; frames then follow each other."
    ),
    "Seconds into the driver at which to stop; its own end if not given.": (
        "Seconds into the clip at which to stop; its own end if not given."
    ),
    "Shows the driver and its pose beside the result.": (
        "Shows the clip to copy and its head pose beside the result."
    ),
    "The driver's own rate, or another; frames spread over the clip play at it faster than life, "
    "without sound.": (
        "That of the clip, or another; frames spread over it play faster than life, without sound."
    ),
    "Which part of the driver's motion counts.": "Which part of the motion counts.",
    "x1: plain Stable Diffusion sees the reference, which keeps the likeness; x2: the styled model sees it, "
    "too.": (
        "x1: plain Stable Diffusion sees the portrait, which keeps the likeness; x2: the styled model sees "
        "it, too."
    ),
}

# In sentences: regular expression -> what it becomes
PLAIN_WORDS = {
    r"\breference picture\b": "portrait",
    r"\b([Tt]he) reference\b(?! (adapter|map|net))": r"\1 portrait",
    r"\bdriver picture\b": "picture to copy",
    r"\b([Tt]he) driver must be a still\b": r"\1 picture to copy must be a still",
    r"\bdriver clip\b": "clip to copy",
    r"\b([Tt]he|no) driver\b": r"\1 clip to copy",
}
