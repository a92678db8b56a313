/** The token in a page's address (docs/security.md): taken out of it, so that nobody reads it off the screen or bookmarks it. */

/** The studio's: the server has made a cookie of it. */
export function dropToken(): string | null {
  const url = new URL(location.href)
  const token = url.searchParams.get('token')
  if (token === null) return null
  url.searchParams.delete('token')
  history.replaceState(history.state, '', url)
  return token
}

let kept: string | null = null

/** A viewer's: kept for this page of this tab alone, as the same browser may have the studio open in another. */
export function keepToken(): string | null {
  const name = `token of ${location.pathname}`
  const token = (kept = dropToken() ?? kept)
  try {
    if (token !== null) sessionStorage.setItem(name, token)
    return token ?? sessionStorage.getItem(name)
  } catch {
    return token // storage is switched off: it lasts until the page is loaded anew
  }
}
