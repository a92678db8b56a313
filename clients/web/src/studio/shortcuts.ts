/** Keys that work wherever no text is being typed. */
export interface Shortcut {
  key: string
  says: string
  act: () => void
}

/** Call the shortcut of a pressed key, if it has one and the key is not meant for something else. */
export function pressed(
  shortcuts: readonly Shortcut[],
  { key, ctrlKey, metaKey, altKey, repeat }: Pick<KeyboardEvent, 'key' | 'ctrlKey' | 'metaKey' | 'altKey' | 'repeat'>,
  focus: { tagName: string; type?: string } | null,
): boolean {
  if (ctrlKey || metaKey || altKey || repeat) return false
  const tag = focus?.tagName.toLowerCase() ?? ''
  if (['textarea', 'select'].includes(tag) || (tag === 'input' && !['radio', 'checkbox'].includes(focus?.type ?? '')))
    return false
  if (key === ' ' && ['button', 'input', 'summary', 'a'].includes(tag)) return false // it presses what has the focus
  const shortcut = shortcuts.find((known) => known.key === (key === ' ' ? 'Space' : key.toUpperCase()))
  shortcut?.act()
  return shortcut !== undefined
}
