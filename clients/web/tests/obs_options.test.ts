import { describe, expect, it } from 'vitest'
import { readObsOptions } from '../src/obs_options'

const read = (query: string) => readObsOptions(new URLSearchParams(query))

describe('what the address of the OBS page asks for', () => {
  it('is a transparent page that fills the source, unless it says otherwise', () => {
    expect(read('')).toEqual({ key: null, width: null, height: null, fit: 'contain', mirror: false })
    expect(read('bg=transparent&token=abc&codec=vp8&probe=1').key).toBeNull()
    expect(read('bg=00FF00&width=640&height=360&fit=cover&mirror=1')).toEqual({
      key: '00FF00',
      width: 640,
      height: 360,
      fit: 'cover',
      mirror: true,
    })
  })

  it.each([
    ['bg=green', '?bg=green'],
    ['bg=0f0', '?bg=0f0'],
    ['bg=00ff00;x:url(y)', 'six hex digits'],
    ['width=0', '?width=0'],
    ['height=1e3', '?height=1e3'],
    ['width=9000', '1 to 8192'],
    ['fit=fill', 'contain or cover'],
    ['mirror=yes', 'write 0 or 1'],
    ['background=00ff00', 'is not known here'],
  ])('%s is refused with what to write', (query, says) => {
    expect(() => read(query)).toThrow(says)
  })
})
