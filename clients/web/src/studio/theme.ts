/** Light or dark: as the system says, until the user says otherwise. */
const KEY = 'lhm-live-theme'

export const isDark = (): boolean => document.documentElement.dataset.theme === 'dark'

export function mountTheme(toggle: HTMLButtonElement): void {
  const system = matchMedia('(prefers-color-scheme: dark)')
  const current = () => localStorage.getItem(KEY) ?? (system.matches ? 'dark' : 'light')
  const apply = () => {
    document.documentElement.dataset.theme = current()
    dispatchEvent(new Event('themechange'))
  }
  apply()
  system.onchange = apply
  toggle.onclick = () => {
    localStorage.setItem(KEY, current() === 'dark' ? 'light' : 'dark')
    apply()
  }
}
