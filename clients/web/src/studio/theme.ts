/** Light or dark: as the system says, until the user says otherwise. */
const KEY = 'lhm-live-theme'

export function mountTheme(toggle: HTMLButtonElement): void {
  const system = matchMedia('(prefers-color-scheme: dark)')
  const current = () => localStorage.getItem(KEY) ?? (system.matches ? 'dark' : 'light')
  const apply = () => (document.documentElement.dataset.theme = current())
  apply()
  system.onchange = apply
  toggle.onclick = () => {
    localStorage.setItem(KEY, current() === 'dark' ? 'light' : 'dark')
    apply()
  }
}
