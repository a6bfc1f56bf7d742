"""Videos that will not become searchable, as a failed job leaves them."""

from sqlalchemy import update

from store.videos.tables import Video, VideoState


def fail_video(session, video_id, *, code="c", message="m"):
    values = {"state": VideoState.FAILED, "error_code": code, "error_message": message}
    session.execute(update(Video).where(Video.id == video_id).values(values))
