/** The switch that gives the avatar away: viewers' pages may then draw it themselves (splats/). */
import { server } from '../wire/messages'
import { byId, toast } from './dom'
import type { Store } from './state'

export function mountGiving(store: Store): void {
  const choice = byId('give-avatar', HTMLInputElement)
  choice.onchange = () => {
    const { session } = store.state
    if (session === null) return
    server.giveAvatar(session, choice.checked).catch((error: Error) => {
      toast(error.message)
      choice.checked = given()
    })
  }
  const given = () => store.state.sessionState?.share_avatar ?? false
  store.onChange(({ sessionState }, before) => {
    if (sessionState?.share_avatar !== before.sessionState?.share_avatar || !sessionState) choice.checked = given()
  })
}
