/** What to tell people when something is in the way, and what they can do about it. */
import type { Problem } from '../live/phase'
import type { CameraFault } from '../tracking/camera'

export interface Trouble {
  title: string
  text: string
  steps: string[]
  /** For those who look for the fault. */
  detail?: string
}

export function troubleWithCamera(fault: CameraFault, detail: string, page: URL): Trouble {
  switch (fault) {
    case 'insecure':
      return {
        title: 'The camera needs a secure page',
        text: 'Browsers give the camera only to pages on https or on this very computer.',
        steps: [
          `On the computer that runs lhm-live, open http://localhost:${page.port || '80'}`,
          'From another device, serve lhm-live with a certificate and open it with https',
          'Or let a recording move the avatar: that works everywhere',
        ],
        detail: `This page is ${page.origin}`,
      }
    case 'refused':
      return {
        title: 'The camera was refused',
        text: 'This page may not use your camera, so nothing can follow you.',
        steps: [
          'Click the camera or lock symbol beside the address and allow the camera',
          'On a phone, also check the browser’s permission in the system settings',
          'Then try again',
        ],
      }
    case 'absent':
      return {
        title: 'No camera was found',
        text: 'Your browser sees no camera on this device.',
        steps: ['Plug one in, or take off its cover switch', 'Or choose a recording to move the avatar'],
      }
    case 'busy':
      return {
        title: 'The camera is busy',
        text: 'Another program holds it.',
        steps: ['Close other programs and pages that use the camera', 'Then try again'],
        detail,
      }
    case 'other':
      return {
        title: 'The camera does not open',
        text: 'Your browser could not start it.',
        steps: ['Try again'],
        detail,
      }
  }
}

export function troubleWithTracking(message: string): Trouble {
  return {
    title: 'This browser cannot follow you',
    text: 'The models that find body, face and hands did not run here.',
    steps: ['Choose “My camera, on the server” instead', 'Or use a current Chrome, Edge, Firefox or Safari'],
    detail: message,
  }
}

export function troubleWithConnection(problem: Problem): Trouble {
  switch (problem.code) {
    case 'unreachable':
      return {
        title: 'The server does not answer',
        text: 'It may be restarting, or the network is down.',
        steps: ['Check that lhm-live is still running'],
      }
    case 'blocked':
      return {
        title: 'The network lets no video through',
        text: 'The server answers, but its picture cannot reach you: UDP is blocked on the way, by a firewall, a VPN or a company network.',
        steps: [
          'Switch off the VPN, or try another network',
          'Let UDP to the server through its firewall',
          'Or give lhm-live a TURN server: rtc.turn in its configuration',
        ],
        detail: `Paths offered from here: ${problem.candidates.join(', ') || 'none'}`,
      }
    case 'stalled':
      return {
        title: 'The picture stands still',
        text: 'The connection is there, but no new pictures arrive.',
        steps: ['The server may be overloaded: lower the quality', 'A weak network may be in the way'],
      }
    case 'refused':
      return (
        troubleWithAccess(problem.reason, problem.message) ?? {
          title: 'The server refused',
          text: problem.message,
          steps: [],
          detail: problem.reason,
        }
      )
  }
}

/** What to do when the server does not let this page in; null where it is something else. */
function troubleWithAccess(reason: string, message: string): Trouble | null {
  const steps = [
    'Ask whoever runs lhm-live for a new link, and open it here',
    'If that is you: lhm-live token prints one',
  ]
  switch (reason) {
    case 'no_token':
      return {
        title: 'This page needs an invitation',
        text: 'The server lets in only those who come by a link.',
        steps,
      }
    case 'token_expired':
      return { title: 'Your link has expired', text: 'It was good for a while only.', steps }
    case 'bad_token':
      return {
        title: 'Your link is not valid',
        text: 'It may be cut short, or the server has been given another secret.',
        steps,
      }
    case 'forbidden':
      return { title: 'Your link does not allow this', text: `The server says: ${message}.`, steps }
    case 'unknown_host':
      return {
        title: 'The server does not know this name',
        text: `It is not called ${location.host}, as far as it knows.`,
        steps: ['Open it by its address instead', 'Or add the name to server.names in its configuration'],
      }
    default:
      return null
  }
}

export function troubleWithPhoto(message: string, warnings: string[]): Trouble {
  return {
    title: 'No avatar from this photo',
    text: message, // says what to do
    steps: warnings,
  }
}
