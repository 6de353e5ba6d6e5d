"""The events that stop a visitor's runs."""

from __future__ import annotations

import asyncio

import gradio as gr

from . import state
from .gradio_patches import current_page


async def stop(request: gr.Request):
    """Ends the visitor's own runs at their next steps, and what waits to be run."""
    # A coroutine, since a thread might start only after the visitor's next run has begun.
    page, runs, session = current_page(), state.STATE.runs, request.session_hash
    if not runs.stop(session):
        runs.stopped_events |= page.running_events(session, "model")
    page.clear_queue(session, "model")


async def stop_on_leave(request: gr.Request):
    """Ends the runs of a visitor who closes the page, and forgets results and camera."""
    state.STATE.runs.stop(request.session_hash)
    state.STATE.kept.end(request.session_hash)
    current_page().end_streams(request.session_hash)
    await asyncio.to_thread(state.STATE.live.end, request.session_hash)
