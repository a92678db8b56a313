/** The elements of index.html, by id and kind. A missing one is a mistake of ours, so it throws. */
export function byId<T extends Element>(id: string, kind: new () => T): T {
  const found = document.getElementById(id)
  if (!(found instanceof kind)) throw new Error(`#${id} is no ${kind.name}`)
  return found
}

export const button = (id: string) => byId(id, HTMLButtonElement)
export const region = (id: string) => byId(id, HTMLElement)

export function radios(name: string): HTMLInputElement[] {
  return [...document.querySelectorAll<HTMLInputElement>(`input[name=${name}]`)]
}

export function icon(name: string): SVGSVGElement {
  const svg = document.createElementNS('http://www.w3.org/2000/svg', 'svg')
  const use = document.createElementNS('http://www.w3.org/2000/svg', 'use')
  use.setAttribute('href', `#i-${name}`)
  svg.append(use)
  return svg
}

/** Put a text into the clipboard and say so; without one (on a page that is not secure) show the text instead. */
export async function copy(text: string, said: string): Promise<void> {
  try {
    await navigator.clipboard.writeText(text)
    toast(said)
  } catch {
    toast(text)
  }
}

let hiding: ReturnType<typeof setTimeout> | undefined

/** Say something in passing. */
export function toast(text: string): void {
  const element = region('toast')
  element.textContent = text
  element.dataset.shown = ''
  clearTimeout(hiding)
  hiding = setTimeout(() => delete element.dataset.shown, 4000)
}
