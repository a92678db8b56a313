import { copyFileSync, mkdirSync, readFileSync } from 'node:fs'
import { resolve } from 'node:path'
import { defineConfig, type Plugin } from 'vite'

const root = import.meta.dirname
const out = resolve(root, '../../streaming/web')
const mediapipe = 'node_modules/@mediapipe/tasks-vision'
const { version } = JSON.parse(readFileSync(resolve(root, mediapipe, 'package.json'), 'utf8')) as { version: string }
// named by version, so that browsers may keep everything in assets/ for ever
const wasmFolder = `assets/mediapipe-${version}`

// MediaPipe loads its wasm by URL at run time, so no bundler sees it. Module build only: every browser with module
// workers has SIMD as well.
function mediapipeWasm(): Plugin {
  return {
    name: 'mediapipe-wasm',
    apply: 'build',
    closeBundle() {
      const to = resolve(out, wasmFolder)
      mkdirSync(to, { recursive: true })
      for (const file of ['vision_wasm_module_internal.js', 'vision_wasm_module_internal.wasm']) {
        copyFileSync(resolve(root, mediapipe, 'wasm', file), resolve(to, file))
      }
    },
  }
}

export default defineConfig(({ command }) => ({
  root,
  define: { MEDIAPIPE_FOLDER: JSON.stringify(command === 'build' ? `/${wasmFolder}` : `/${mediapipe}/wasm`) },
  plugins: [mediapipeWasm()],
  worker: { format: 'es' },
  build: {
    outDir: out,
    emptyOutDir: true,
    target: 'es2022',
    chunkSizeWarningLimit: 3500, // three and Spark, loaded by pages that draw the avatar themselves and no other
    assetsInlineLimit: 0, // a strict Content-Security-Policy allows no data: URLs
    rolldownOptions: { input: ['index', 'view', 'obs', 'check'].map((page) => resolve(root, `${page}.html`)) },
  },
  server: {
    proxy: { '^/(api|v1|whep|whip|models|healthz|readyz|metrics)': { target: 'http://127.0.0.1:8080', ws: true } },
  },
}))
