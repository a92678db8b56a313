import { describe, expect, it } from 'vitest'
import { describeHeard, listParts, poseUrl } from '../src/studio/inputs'
import { troubleWithCamera, troubleWithConnection } from '../src/studio/help_texts'
import { formatBytes } from '../src/studio/films'
import { placeAfter, titleOf } from '../src/studio/player'
import { chooseFormat, fileName } from '../src/studio/recorder'
import { coveringPart } from '../src/studio/scene'
import { pressed, type Shortcut } from '../src/studio/shortcuts'
import {
  cameraUses,
  initialState,
  nextStep,
  pictureSize,
  serverBackground,
  statusOf,
  type StudioState,
} from '../src/studio/state'
import type { Avatar, Inputs, ServerState } from '../src/wire/messages'

const person: Avatar = { id: 'ada', name: 'Ada', preview: null, method: 'builtin', created_at: '', warnings: [] }
const inputs: Inputs = {
  vmc: { host: '127.0.0.1', port: 39539, senders: ['127.0.0.0/8'] },
  vmc_to: '127.0.0.1:39540',
  facemocap: { host: '0.0.0.0', port: 49983, senders: ['192.168.1.42/32'] },
  phone: null,
  broker: 'broker.example.org:1883',
  tenant: 'default',
  merged: {},
}
const known: ServerState = {
  version: '1',
  sessions: [],
  avatars: [person, { ...person, id: 'grace' }],
  sources: ['browser', 'replay', 'idle'],
  replays: ['wave'],
  jobs: [],
  inputs,
  recordings: [],
}
const fresh = initialState(null, false)
const ready: StudioState = { ...fresh, server: known, avatar: 'ada', source: 'idle' }

describe('the big button', () => {
  it('waits for a person', () => {
    expect(nextStep(fresh, true).enabled).toBe(false)
    expect(nextStep({ ...ready, avatar: 'gone' }, true).enabled).toBe(false)
    expect(nextStep(ready, true)).toEqual({ label: 'Move it with my camera', source: 'browser', enabled: true })
  })

  it('offers a recording where there can be no camera', () => {
    expect(nextStep({ ...ready, replay: 'wave' }, false)).toMatchObject({ source: 'replay' })
    expect(nextStep(ready, false)).toMatchObject({ source: 'browser' })
  })

  it('stops what moves it, and nothing while that changes', () => {
    expect(nextStep({ ...ready, source: 'webcam' }, true)).toEqual({ label: 'Stop', source: 'idle', enabled: true })
    expect(nextStep({ ...ready, source: 'webcam', casting: true }, true).enabled).toBe(false)
    expect(nextStep({ ...ready, casting: true }, true).enabled).toBe(false)
  })
})

describe('the status', () => {
  it.each([
    [fresh, 'Looking for the server'],
    [ready, 'Ready'],
    [{ ...ready, serverDown: true }, 'Server does not answer'],
    [{ ...ready, casting: true }, 'Starting'],
    [{ ...ready, casting: true, phase: { name: 'live' } }, 'Changing over'],
    [{ ...ready, phase: { name: 'connecting', attempt: 1 } }, 'Connecting'],
    [{ ...ready, phase: { name: 'connecting', attempt: 3 } }, 'Reconnecting, try 3'],
    [{ ...ready, phase: { name: 'live' } }, 'Live'],
    [{ ...ready, phase: { name: 'live' }, tracking: 'loading' }, 'Loading tracking'],
    [
      { ...ready, phase: { name: 'waiting', attempt: 1, retryInMs: 1, problem: { code: 'stalled' } } },
      'Connection lost',
    ],
  ] as [StudioState, string][])('%#: %s', (state, text) => expect(statusOf(state).text).toBe(text))
})

describe('what is remembered', () => {
  it('survives what it cannot read', () => {
    expect(initialState('{', false)).toEqual(fresh)
    expect(initialState('{"settings":{"mirror":false}}', false).settings).toEqual({ ...fresh.settings, mirror: false })
    expect(initialState('{"source":"browser"}', false).source).toBe('idle') // no camera unasked
  })

  it('starts dark in the dark', () => {
    expect(initialState(null, true).settings.background).not.toEqual(fresh.settings.background)
  })
})

describe('the picture', () => {
  it('has the shape of the stage, within reason', () => {
    const shape = (width: number, height: number) => {
      const size = pictureSize(width, height)
      expect((size.width % 16) + (size.height % 16)).toBe(0)
      expect(Math.abs(size.width * size.height - 600_000)).toBeLessThan(20_000)
      return size.width / size.height
    }
    expect(shape(840, 700)).toBeCloseTo(1.2, 1)
    expect(shape(366, 490)).toBeCloseTo(0.75, 1)
    expect(shape(3000, 400)).toBeCloseTo(1.6, 1)
    expect(shape(10, 4000)).toBeCloseTo(0.56, 1)
    expect(pictureSize(0, 0)).toEqual(pictureSize(500, 500)) // a hidden page
  })

  it('has a background that the server knows', () => {
    expect(serverBackground({ kind: 'colour', hex: '#00b140' })).toBe('00b140')
    expect(serverBackground({ kind: 'picture', url: 'blob:x' })).toBe('transparent')
  })

  it('is covered by what lies behind it', () => {
    expect(coveringPart({ width: 400, height: 200 }, { width: 100, height: 100 })).toEqual({
      x: 100,
      y: 0,
      width: 200,
      height: 200,
    })
    expect(coveringPart({ width: 100, height: 400 }, { width: 200, height: 200 })).toEqual({
      x: 0,
      y: 150,
      width: 100,
      height: 100,
    })
  })

  it('is kept in the best format there is', () => {
    expect(chooseFormat(false, () => true)).toContain('mp4')
    expect(chooseFormat(true, () => true)).toContain('webm')
    expect(chooseFormat(false, (type) => type === 'video/webm')).toBe('video/webm')
    expect(chooseFormat(true, () => false)).toBeNull()
    expect(fileName('video/mp4;codecs=avc1', new Date(2026, 10, 22, 9, 5, 7))).toBe('lhm-live 2026-11-22 09.05.07.mp4')
  })
})

describe('keys', () => {
  const none = { ctrlKey: false, metaKey: false, altKey: false, repeat: false }
  const press = (key: string, focus: { tagName: string; type?: string } | null = null, held = {}) => {
    const done: string[] = []
    const shortcuts: Shortcut[] = ['Space', 'M', '1', '?'].map((known) => ({
      key: known,
      says: '',
      act: () => done.push(known),
    }))
    pressed(shortcuts, { key, ...none, ...held }, focus)
    return done
  }

  it('work in either case', () => {
    expect([press('m'), press('M'), press('?'), press(' '), press('x')]).toEqual([['M'], ['M'], ['?'], ['Space'], []])
  })

  it('stay out of the way of typing, of buttons and of other shortcuts', () => {
    expect(press('m', { tagName: 'INPUT', type: 'text' })).toEqual([])
    expect(press('m', { tagName: 'INPUT', type: 'radio' })).toEqual(['M'])
    expect(press('1', { tagName: 'SELECT' })).toEqual([])
    expect(press(' ', { tagName: 'BUTTON' })).toEqual([])
    expect(press('m', null, { ctrlKey: true })).toEqual([])
    expect(press('m', null, { repeat: true })).toEqual([])
  })
})

describe('words', () => {
  it('name motions and sizes as people do', () => {
    expect([titleOf('wave'), titleOf('my_slow-dance.npz')]).toEqual(['Wave', 'My slow dance'])
    expect([formatBytes(900), formatBytes(12_340_000)]).toEqual(['1 kB', '12.3 MB'])
  })
})

describe('camera', () => {
  it('is opened for what uses it, also as a part of a merged driver', () => {
    const merged = {
      body: { source: 'webcam', rig: null, replay: null },
      face: { source: 'facemocap', rig: null, replay: null },
    } as const
    const server = { ...known, inputs: { ...inputs, merged } }
    expect(cameraUses('browser', server)).toEqual(['browser'])
    expect(cameraUses('merged', server)).toEqual(['webcam'])
    expect(cameraUses('merged', known)).toEqual([])
    expect(cameraUses('vmc', server)).toEqual([])
  })
})

describe('help', () => {
  it('says where a camera works', () => {
    const { steps, detail } = troubleWithCamera('insecure', '', new URL('http://192.0.2.7:8080/'))
    expect(steps[0]).toContain('http://localhost:8080')
    expect(detail).toContain('192.0.2.7')
  })

  it('knows blocked UDP by what was tried', () => {
    expect(troubleWithConnection({ code: 'blocked', candidates: ['host/udp'] })).toMatchObject({
      title: 'The network lets no video through',
      detail: 'Paths offered from here: host/udp',
    })
  })
})

describe('what programs on the network are told', () => {
  const listener = { inputs, hostname: 'studio.local', rig: 'stage', heardHz: 0 }

  it('where to send to, while nothing is heard', () => {
    expect(describeHeard({ ...listener, source: 'vmc' })).toMatch(
      /Nothing is heard yet\. Send VMC to 127\.0\.0\.1:39539, /,
    )
    expect(describeHeard({ ...listener, source: 'mqtt' })).toContain(
      'lhm-live/default/stage/pose at the broker broker.',
    )
  })

  it('the name of the server where it listens everywhere, and to whom', () => {
    const text = describeHeard({ ...listener, source: 'facemocap' })
    expect(text).toContain('studio.local:49983')
    expect(text).toContain('192.168.1.42/32')
    expect(describeHeard({ ...listener, inputs: { ...inputs, phone: '10.0.0.7' }, source: 'facemocap' })).toContain(
      '10.0.0.7',
    )
  })

  it('how much is heard', () => {
    expect(describeHeard({ ...listener, source: 'vmc', heardHz: 59.6 })).toBe('60 samples a second')
    expect(describeHeard({ ...listener, source: 'vmc', heardHz: 0.5 })).toBe('0.5 samples a second')
  })

  it('who drives which part', () => {
    const rig = { source: 'mqtt' as const, rig: 'stage', replay: null }
    const phone = { source: 'facemocap' as const, rig: null, replay: null }
    expect(listParts({ body: rig, hands: rig, face: phone })).toBe('Body, hands: rig stage; face: phone')
  })

  it('the address of a session', () => {
    expect(poseUrl(new URL('https://example.org/?x#session=a'), 'a b')).toBe('wss://example.org/v1/pose/a%20b')
  })
})

describe('a recorded motion', () => {
  const played = { replay_s: 4, place_s: 3, speed: 2, loop: true }

  it.each([
    [played, 1, 1],
    [{ ...played, loop: false }, 1, 4],
    [{ ...played, speed: 0 }, 60, 3],
  ])('is at its place', (state, seconds, place) => expect(placeAfter(state, seconds)).toBeCloseTo(place))
})
