/** Records the scene into a file of the browser's choosing. */

// WebM keeps transparency; everybody plays MP4
const OPAQUE = ['video/mp4;codecs=avc1.42E01F', 'video/mp4', 'video/webm;codecs=vp9', 'video/webm']
const TRANSPARENT = ['video/webm;codecs=vp9', 'video/webm;codecs=vp8', 'video/webm', 'video/mp4']

export function chooseFormat(transparent: boolean, supports: (type: string) => boolean): string | null {
  return (transparent ? TRANSPARENT : OPAQUE).find(supports) ?? null
}

export class Recorder {
  #recorder: MediaRecorder
  #chunks: Blob[] = []
  readonly startedMs = performance.now()

  constructor(stream: MediaStream, transparent: boolean) {
    const mimeType = chooseFormat(transparent, (type) => MediaRecorder.isTypeSupported(type))
    this.#recorder = new MediaRecorder(stream, { ...(mimeType && { mimeType }), videoBitsPerSecond: 6_000_000 })
    this.#recorder.ondataavailable = ({ data }) => this.#chunks.push(data)
    this.#recorder.start(1000)
  }

  async stop(): Promise<Blob> {
    await new Promise((resolve) => {
      this.#recorder.onstop = resolve
      this.#recorder.stop()
    })
    return new Blob(this.#chunks, { type: this.#recorder.mimeType })
  }
}

export function save(blob: Blob, name: string): void {
  const link = document.createElement('a')
  link.href = URL.createObjectURL(blob)
  link.download = name
  link.click()
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000)
}

/** Keep a file of the server's. */
export function saveFrom(url: string, name: string): void {
  Object.assign(document.createElement('a'), { href: url, download: name }).click()
}

/** lhm-live 2026-11-22 12.03.44.mp4 */
export function fileName(type: string, now: Date): string {
  const extension = type.includes('mp4') ? 'mp4' : type.includes('webm') ? 'webm' : 'png'
  const pad = (value: number) => String(value).padStart(2, '0')
  const date = `${now.getFullYear()}-${pad(now.getMonth() + 1)}-${pad(now.getDate())}`
  return `lhm-live ${date} ${pad(now.getHours())}.${pad(now.getMinutes())}.${pad(now.getSeconds())}.${extension}`
}
