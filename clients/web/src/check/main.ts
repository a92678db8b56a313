/** The self-test page, /check: runs by itself, says what is wrong, and what to do about it. */
import { button, copy, region } from '../studio/dom'
import { mountTheme } from '../studio/theme'
import type { ServerState } from '../wire/messages'
import {
  checkCamera,
  checkCodecs,
  checkLoopback,
  checkMicrophone,
  checkSecurity,
  checkTracking,
  checkWebgl,
  wouldAsk,
} from './browser'
import { writeReport } from './report'
import { checkConnection, checkServer } from './server'
import { summarise, type Verdict } from './verdict'

const LINES = {
  secure: 'Secure page',
  webgl: 'Graphics',
  codecs: 'Video formats',
  loopback: 'WebRTC in this browser',
  server: 'Server',
  media: 'Video from the server',
  latency: 'Delay of the picture',
  clock: 'Way there and back',
  turn: 'TURN server',
  camera: 'Camera',
  microphone: 'Microphone',
  tracking: 'Following you in this browser',
} as const
type Line = keyof typeof LINES

const LIMIT_MS = 60_000
const WORDS = { ok: 'works', warning: 'could be better', failed: 'does not work', skipped: 'not tested' }

const verdicts = new Map<Line, Verdict>()
const rows = new Map<Line, HTMLLIElement>()
let serverVersion: string | null = null

function mountRows(): void {
  for (const [line, title] of Object.entries(LINES) as [Line, string][]) {
    const row = document.createElement('li')
    row.id = line
    row.dataset.tone = 'waiting'
    const head = Object.assign(document.createElement('h2'), { textContent: title })
    const text = Object.assign(document.createElement('p'), { textContent: 'Waits its turn' })
    row.append(head, text)
    rows.set(line, row)
  }
  region('lines').replaceChildren(...rows.values())
}

function show(line: Line, verdict: Verdict): void {
  verdicts.set(line, verdict)
  const { tone, text, steps = [], detail } = verdict
  const row = rows.get(line)!
  row.dataset.tone = tone
  const parts: HTMLElement[] = [
    Object.assign(document.createElement('h2'), { textContent: LINES[line] }),
    Object.assign(document.createElement('p'), { textContent: text }),
  ]
  parts[0].append(Object.assign(document.createElement('span'), { className: 'tone', textContent: WORDS[tone] }))
  if (steps.length > 0 && tone !== 'ok') {
    const list = document.createElement('ul')
    list.append(...steps.map((step) => Object.assign(document.createElement('li'), { textContent: step })))
    parts.push(list)
  }
  if (detail) parts.push(Object.assign(document.createElement('p'), { className: 'detail', textContent: detail }))
  row.replaceChildren(...parts)
}

function begin(...lines: Line[]): void {
  for (const line of lines) {
    const row = rows.get(line)!
    row.dataset.tone = 'running'
    row.querySelector('p')!.textContent = 'Is being tested…'
  }
}

async function run(line: Line, check: () => Verdict | Promise<Verdict>): Promise<void> {
  begin(line)
  let clock: ReturnType<typeof setTimeout> | undefined
  const late = new Promise<Verdict>((resolve) => {
    const text = `It was not done within ${LIMIT_MS / 1000} s.`
    clock = setTimeout(() => resolve({ tone: 'failed', text, steps: ['Load the page again'] }), LIMIT_MS)
  })
  try {
    show(line, await Promise.race([check(), late]))
  } catch (error) {
    show(line, { tone: 'failed', text: (error as Error).message })
  } finally {
    clearTimeout(clock)
  }
}

/** Cameras and microphones are not asked for before somebody wants that. */
async function checkDevices(): Promise<void> {
  const devices: [Line & ('camera' | 'microphone'), () => Promise<Verdict>][] = [
    ['camera', checkCamera],
    ['microphone', checkMicrophone],
  ]
  for (const [line, check] of devices) {
    if (!(await wouldAsk(line))) {
      await run(line, check)
      continue
    }
    const row = rows.get(line)!
    row.dataset.tone = 'asking'
    const ask = Object.assign(document.createElement('button'), { type: 'button', textContent: `Test the ${line}` })
    ask.onclick = () => void run(line, check).then(conclude)
    row.querySelector('p')!.replaceChildren('The browser will ask you for it. ', ask)
  }
}

async function checkWay(known: ServerState | null): Promise<void> {
  const lines = ['media', 'latency', 'clock', 'turn'] as const
  if (!known) {
    for (const line of lines) show(line, { tone: 'skipped', text: 'Not without the server.' })
    return
  }
  begin(...lines)
  const found = await checkConnection(known)
  for (const line of lines) show(line, found[line])
}

function conclude(): void {
  const all = [...verdicts.values()]
  const open = rows.size - verdicts.size
  region('summary').textContent = summarise(all) + (open > 0 ? ` ${open} not tested yet.` : '')
  document.body.dataset.done = ''
}

async function main(): Promise<void> {
  mountTheme(button('theme'))
  mountRows()
  button('copy').onclick = () => void copy(report(), 'Report copied')
  button('again').onclick = () => location.reload()
  await run('secure', checkSecurity)
  await run('webgl', checkWebgl)
  await run('codecs', checkCodecs)
  await run('loopback', checkLoopback)
  begin('server')
  const { verdict, known } = await checkServer()
  serverVersion = known?.version ?? null
  show('server', verdict)
  await checkWay(known)
  await checkDevices()
  await run('tracking', checkTracking)
  conclude()
}

const report = () =>
  writeReport(
    (Object.entries(LINES) as [Line, string][]).map(([line, title]) => ({
      title,
      verdict: verdicts.get(line) ?? null,
    })),
    { page: new URL(location.href), browser: navigator.userAgent, server: serverVersion, at: new Date() },
  )

void main()
