/** What draws WebGL here; null where there is no WebGL 2. Software is the processor doing a graphics card's work. */
export function findRenderer(canvas: HTMLCanvasElement | OffscreenCanvas): { name: string; software: boolean } | null {
  const gl = canvas.getContext('webgl2') as WebGL2RenderingContext | null
  if (!gl) return null
  const info = gl.getExtension('WEBGL_debug_renderer_info')
  const name = String(gl.getParameter(info ? info.UNMASKED_RENDERER_WEBGL : gl.RENDERER))
  gl.getExtension('WEBGL_lose_context')?.loseContext()
  return { name, software: /swiftshader|llvmpipe|software|basic render/i.test(name) }
}
