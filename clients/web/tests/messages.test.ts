import { afterEach, describe, expect, it, vi } from 'vitest'
import { followJob, server, ServerError, type Job } from '../src/wire/messages'

const answer = (status: number, body: unknown) =>
  new Response(typeof body === 'string' ? body : JSON.stringify(body), { status: status === 204 ? 200 : status })
const answers = (...queue: (Response | Error)[]) =>
  vi.stubGlobal(
    'fetch',
    vi.fn(() => {
      const next = queue.shift()
      return next instanceof Error ? Promise.reject(next) : Promise.resolve(next)
    }),
  )
const job = (change: Partial<Job>): Job => ({
  state: 'running',
  stage: 'Fitting',
  fraction: 0.5,
  message: '',
  warnings: [],
  ...change,
})
const quickly = { wait: () => Promise.resolve() }

afterEach(() => vi.unstubAllGlobals())

describe('the server', () => {
  it('says what went wrong in its own words', async () => {
    answers(answer(409, { error: { code: 'too_many', message: 'Four sessions run already.' } }))
    const error = await server.state().catch((caught: unknown) => caught)
    expect(error).toBeInstanceOf(ServerError)
    expect(error).toMatchObject({ status: 409, code: 'too_many', message: 'Four sessions run already.' })
  })

  it('may be hidden behind something else, or away', async () => {
    answers(answer(502, '<html>Bad gateway</html>'), new TypeError('fetch failed'))
    await expect(server.state()).rejects.toMatchObject({ status: 502, code: 'http' })
    await expect(server.state()).rejects.toMatchObject({ status: 0, code: 'unreachable' })
  })

  it('is asked with names that are safe in addresses', async () => {
    answers(answer(204, ''))
    await server.deleteAvatar('a/b c')
    expect(fetch).toHaveBeenCalledWith('/api/avatars/a%2Fb%20c', { method: 'DELETE' })
  })
})

describe('a job', () => {
  it('is followed to its end, through short breaks', async () => {
    answers(
      answer(200, job({ fraction: 0.1 })),
      new TypeError('fetch failed'),
      answer(503, ''),
      answer(200, job({ fraction: 0.9 })),
      answer(200, job({ state: 'done', fraction: 1, avatar: 'new' })),
    )
    const seen: number[] = []
    const done = await followJob('j', ({ fraction }) => seen.push(fraction), quickly)
    expect(done.avatar).toBe('new')
    expect(seen).toEqual([0.1, 0.9, 1])
  })

  it('that nobody knows any more is given up', async () => {
    answers(answer(200, job({})), answer(404, { error: { code: 'unknown_job', message: 'No such job.' } }))
    await expect(followJob('j', () => {}, quickly)).rejects.toThrow('No such job.')
  })

  it('of a server that never comes back is given up as well', async () => {
    answers(...Array.from({ length: 30 }, () => new TypeError('fetch failed')))
    await expect(followJob('j', () => {}, quickly)).rejects.toMatchObject({ code: 'unreachable' })
    expect(fetch).toHaveBeenCalledTimes(21)
  })
})
