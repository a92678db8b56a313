/** What to do so that programs on the network are heard, and what is heard of them. */
import type { Inputs, Listening, Part, Source } from '../wire/messages'

export interface Listener {
  source: Source
  inputs: Inputs
  /** Where the page was loaded from: for whoever has to reach the server. */
  hostname: string
  rig: string | null
  heardHz: number
}

/** Whether a source comes from a program that has to be told where to send. */
export const isListenedTo = (source: Source): boolean =>
  ['vmc', 'facemocap', 'mqtt', 'socket', 'merged'].includes(source)

/** One line on a source: what comes of it or, while nothing does, what to do. */
export function describeHeard(listener: Listener): string {
  const { source, inputs, heardHz } = listener
  const rate = `${heardHz < 10 ? heardHz.toFixed(1) : Math.round(heardHz)} samples a second`
  if (heardHz > 0) return source === 'merged' ? `${rate}. ${listParts(inputs.merged)}.` : rate
  return `Nothing is heard yet. ${whatToDo(listener)}`
}

function whatToDo({ source, inputs, hostname, rig }: Listener): string {
  switch (source) {
    case 'vmc':
      return `Send VMC to ${addressOf(inputs.vmc, hostname)}${limits(inputs.vmc, 'vmc')}`
    case 'facemocap':
      if (inputs.phone) return `The phone at ${inputs.phone} is asked to send: open the app there.`
      return `In the app enter the address ${addressOf(inputs.facemocap, hostname)}${limits(inputs.facemocap, 'facemocap')}`
    case 'mqtt':
      return `Let the rig publish to lhm-live/${inputs.tenant}/${rig}/pose at the broker ${inputs.broker}.`
    case 'socket':
      return 'Let your program send samples to the address above.'
    case 'merged':
      return `${listParts(inputs.merged)}.`
    default:
      return ''
  }
}

const isLoopback = (host: string) => host === 'localhost' || host === '::1' || host.startsWith('127.')

function addressOf({ host, port }: Listening, hostname: string): string {
  const reached = ['0.0.0.0', '::'].includes(host) ? hostname : host
  return `${reached}:${port}`
}

/** Who is not heard there, however much they send. */
function limits({ host, senders }: Listening, section: string): string {
  if (isLoopback(host))
    return `, from the computer that runs lhm-live. For others: ${section}.host and ${section}.senders in its settings.`
  return `; listened to are ${senders.join(', ')} (${section}.senders in the settings).`
}

const NAMES: Record<Part, string> = { body: 'Body', head: 'head', face: 'face', hands: 'hands' }

/** "Body: rig studio; face, head: phone" */
export function listParts(merged: Inputs['merged']): string {
  const parts = new Map<string, string[]>()
  for (const part of ['body', 'head', 'face', 'hands'] as Part[]) {
    const driver = merged[part]
    if (!driver) continue
    const name = { vmc: 'VMC', facemocap: 'phone', mqtt: `rig ${driver.rig}`, replay: driver.replay ?? '' } as Record<
      string,
      string
    >
    const who =
      name[driver.source] ?? (driver.source === 'webcam' ? 'camera, on the server' : 'this page or a websocket')
    parts.set(who, [...(parts.get(who) ?? []), NAMES[part]])
  }
  return [...parts].map(([who, which]) => `${which.join(', ')}: ${who}`).join('; ')
}

/** Where a program sends samples for a session to. */
export function poseUrl(page: URL, session: string): string {
  const url = new URL(`/v1/pose/${encodeURIComponent(session)}`, page)
  url.protocol = page.protocol === 'https:' ? 'wss:' : 'ws:'
  return url.href
}
