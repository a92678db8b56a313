/** The microphone: off until asked for, and while it is on the page says that everybody who watches hears it. */
import type { Conductor } from './conductor'
import { button, region, toast } from './dom'
import type { Store } from './state'

const LEVEL_EVERY_MS = 60

/** Wire the button up; returns what a key does the same. */
export function mountMicrophone(store: Store, conductor: Conductor): () => void {
  const toggle = button('microphone')
  const onAir = region('on-air')
  let asking = false
  let stopMeter = () => {}

  const close = () => {
    const { microphone } = store.state
    if (!microphone) return
    stopMeter()
    for (const track of microphone.getTracks()) track.stop()
    conductor.speak(null)
  }
  const open = async () => {
    if (asking) return
    asking = true
    try {
      const audio = { echoCancellation: true, noiseSuppression: true, autoGainControl: true }
      const microphone = await navigator.mediaDevices.getUserMedia({ audio })
      microphone.getAudioTracks()[0].onended = () => {
        toast('The microphone was taken away.')
        close()
      }
      stopMeter = showLevel(microphone, toggle)
      conductor.speak(microphone)
    } catch (error) {
      toast(troubleWithMicrophone(error as Error))
    } finally {
      asking = false
    }
  }
  const act = () => {
    if (store.state.microphone) close()
    else if (store.state.phase.name === 'live') void open()
  }
  toggle.onclick = act

  store.onChange(({ microphone, sessionState }, before) => {
    // whoever turned it off for the session wants nobody to be heard
    if (microphone && before.sessionState?.audio && sessionState?.audio === false) return close()
    const says = microphone ? 'Microphone on: everybody who watches hears you' : 'Microphone off'
    toggle.ariaPressed = String(microphone !== null)
    toggle.title = `${says} (A)`
    onAir.hidden = microphone === null && !sessionState?.audio
    onAir.textContent = microphone ? 'Everybody who watches hears you' : 'Somebody’s microphone is on'
  })
  return act
}

export function troubleWithMicrophone({ name, message }: Error): string {
  switch (name) {
    case 'NotAllowedError':
      return 'The microphone was refused. Allow it beside the address of this page.'
    case 'NotFoundError':
      return 'There is no microphone.'
    case 'NotReadableError':
      return 'Another program holds the microphone.'
    case 'TypeError': // no mediaDevices
      return 'Browsers give the microphone to https and localhost only.'
    default:
      return `No microphone: ${message}`
  }
}

/** Show on `element` how loud it is, as --level from 0 to 1; returns what ends that. */
function showLevel(microphone: MediaStream, element: HTMLElement): () => void {
  const context = new AudioContext()
  const analyser = new AnalyserNode(context, { fftSize: 1024 })
  context.createMediaStreamSource(microphone).connect(analyser)
  const samples = new Float32Array(analyser.fftSize)
  const timer = setInterval(() => {
    analyser.getFloatTimeDomainData(samples)
    const power = samples.reduce((sum, sample) => sum + sample * sample, 0) / samples.length
    const level = 1 + Math.log10(power + 1e-6) / 5 // -50 dB is nothing
    element.style.setProperty('--level', Math.min(Math.max(level, 0), 1).toFixed(2))
  }, LEVEL_EVERY_MS)
  return () => {
    clearInterval(timer)
    element.style.removeProperty('--level')
    void context.close()
  }
}
