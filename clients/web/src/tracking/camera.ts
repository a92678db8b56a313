/** The camera, and what to say when there is none. */

export type CameraFault = 'insecure' | 'refused' | 'absent' | 'busy' | 'other'

export class CameraError extends Error {
  readonly fault: CameraFault

  constructor(fault: CameraFault, message: string) {
    super(message)
    this.fault = fault
  }
}

/** Why getUserMedia failed, from the name of what it threw. */
export function cameraFault(name: string): CameraFault {
  switch (name) {
    case 'NotAllowedError':
    case 'PermissionDeniedError':
      return 'refused'
    case 'NotFoundError':
    case 'OverconstrainedError':
      return 'absent'
    case 'NotReadableError':
    case 'AbortError':
      return 'busy'
    case 'SecurityError':
    case 'TypeError':
      return 'insecure'
    default:
      return 'other'
  }
}

/** Whether this page may ask for a camera at all: browsers allow it on https and on localhost only. */
export const cameraAllowed = (): boolean => isSecureContext && navigator.mediaDevices !== undefined

/** A stream of the user's camera, not mirrored. Throws CameraError. */
export async function openCamera(): Promise<MediaStream> {
  if (!cameraAllowed()) throw new CameraError('insecure', 'this page is not on https or localhost')
  try {
    return await navigator.mediaDevices.getUserMedia({
      video: { width: { ideal: 640 }, height: { ideal: 480 }, frameRate: { ideal: 30 }, facingMode: 'user' },
    })
  } catch (error) {
    const { name, message } = error as DOMException
    throw new CameraError(cameraFault(name), message)
  }
}

export function closeCamera(stream: MediaStream | null): void {
  for (const track of stream?.getTracks() ?? []) track.stop()
}
