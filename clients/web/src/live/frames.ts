/** Call back for every new frame a video shows, until the returned function is called. */
export function eachFrame(
  video: HTMLVideoElement,
  onFrame: (metadata: VideoFrameCallbackMetadata) => void,
): () => void {
  let handle = 0
  const next = () => {
    handle = video.requestVideoFrameCallback((_, metadata) => {
      next()
      onFrame(metadata)
    })
  }
  next()
  return () => video.cancelVideoFrameCallback(handle)
}
