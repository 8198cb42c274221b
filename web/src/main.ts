// Sign-in, the way from page to page, and what every page has round it.
import { adminPage } from './admin'
import { asProblem, call, onSession, type Problem, useSession, type Session } from './api'
import { dialog, h, show, typing } from './dom'
import { forget } from './kept'
import { problemBox } from './problem'
import { signInPage } from './signin'
import { uploadPage } from './upload'
import { worklist } from './worklist'
import { casePage } from './case'

/** A page that is shown: leave stops what it does on its own. */
export interface Page {
  leave(): void
  key?(e: KeyboardEvent): void
}

const app = document.getElementById('app')!
let session: Session | undefined
let page: Page | undefined

onSession({
  ended: () => session && signedOut('Your session has ended. Sign in again.'),
  refused: () => void call<Session>('GET', '/session', { unattended: true }).then((s) => follow(s.csrf_token), () => {}),
})

/** Leaves nothing of the reader on the screen or in the page. */
function clear(): void {
  session = undefined
  page?.leave()
  page = undefined
  forget()
  document.querySelectorAll('dialog').forEach((d) => d.remove())
  show(app)
}

function signedOut(why = ''): void {
  clear()
  signInPage(app, why, begin)
}

function begin(s: Session): void {
  session = s
  useSession(s)
  sessions.postMessage(s.csrf_token)
  attend(s)
  route()
}

// Tabs share the cookie: when one signs out or somebody else in, what the
// others show is no longer their reader's.
const sessions = new BroadcastChannel('session')
sessions.onmessage = (e: MessageEvent<string | undefined>) => follow(e.data)
function follow(token: string | undefined): void {
  if (token === session?.csrf_token) return
  if (session) {
    location.hash = '#/'
    signedOut('You were signed out in another tab.')
  }
  if (token) void start()
}

// The address names a case by its random id only, behind the #, where neither
// server logs nor proxies see it.
function route(): void {
  if (!session) return
  page?.leave()
  document.querySelectorAll('dialog').forEach((d) => d.remove())
  const main = h('main', { id: 'main', tabindex: '-1' })
  show(app, header(session), main)
  main.focus({ preventScroll: true }) // a reader by ear is told of the new page
  const [, what, id, act] = location.hash.split('/')
  // Titles end up in the browser's history: they name nobody.
  const named = (title: string, p: Page): void => {
    document.title = `${title} – NeuroScreen`
    page = p
  }
  if (session.role === 'uploader') named('Hand over a scan', uploadPage(main))
  else if (what === 'case' && id && /^[0-9a-f-]{36}$/.test(id)) named('Case', casePage(main, id, session, act))
  else if (what === 'admin' && session.role === 'admin') named('Administration', adminPage(main, session))
  else named('Worklist', worklist(main, session))
}

function header(s: Session): HTMLElement {
  return h(
    'header',
    { class: 'top' },
    h('a', { href: '#/', class: 'home' }, 'NeuroScreen'),
    h('span', { class: 'use' }, 'Research use'),
    h('span', { class: 'spring' }),
    h('button', { type: 'button', class: 'quiet', onclick: help }, 'Shortcuts ', h('kbd', {}, '?')),
    s.role === 'admin' && h('a', { href: '#/admin', class: 'quiet', id: 'administration' }, 'Administration'),
    h('a', { href: '/docs', class: 'quiet' }, 'API'),
    h('span', { class: 'who' }, s.name || 'Unnamed key', h('small', {}, `${s.role}, site ${s.site}`)),
    h('button', { type: 'button', class: 'quiet', id: 'sign-out', onclick: () => void signOut() }, 'Sign out'),
  )
}

async function signOut(why = ''): Promise<void> {
  location.hash = '#/'
  clear()
  try {
    await call('DELETE', '/session')
  } catch (e) {
    const p = asProblem(e)
    if (p.status !== 401) return stillSignedIn(p, () => void signOut(why))
  }
  sessions.postMessage(undefined)
  signedOut(why)
}

// No script can remove the cookie.
function stillSignedIn(p: Problem, again: () => void): void {
  show(app, h('main', { class: 'alone' }, h('h1', {}, 'You are still signed in'), h('p', {}, 'The service could not be told to sign you out. Try again, or close the browser: all of its windows.'), problemBox(p, again)))
}

// Who dictates, or whose hand trembles, sets off shortcuts of one character
// without meaning to: they can be turned off in this browser.
const shortcutsOff = 'shortcuts-off'
let singleKeys = true
function useSingleKeys(on: boolean): void {
  singleKeys = on
  document.body.classList.toggle('keyless', !on)
  if (on) localStorage.removeItem(shortcutsOff)
  else localStorage.setItem(shortcutsOff, 'yes')
}
useSingleKeys(!localStorage.getItem(shortcutsOff))

function help(): void {
  const single = h('input', { type: 'checkbox', id: 'single-keys', checked: singleKeys, onchange: (e: Event) => useSingleKeys((e.target as HTMLInputElement).checked) })
  const keys: [string, string][] = [
    ['j / k', 'next, previous case'],
    ['Enter', 'open the case'],
    ['/', 'search for a subject or accession number'],
    ['a / e / r', 'accept, amend (edit), reject'],
    ['o', 'labels on and off'],
    ['[ / ]', 'labels fainter, stronger'],
    ['1 / 2 / 3', 'to the left hippocampus, the right, the crosshair’s start'],
    ['← → ↑ ↓ PgUp PgDn', 'in the picture: the crosshair, by 1 mm'],
    ['Esc', 'close, or back to the worklist'],
    ['?', 'this list'],
  ]
  const d = dialog(
    'Shortcuts',
    'narrow',
    h('table', { class: 'keys' }, h('tbody', {}, keys.map(([k, t]) => h('tr', {}, h('th', { scope: 'row' }, h('kbd', {}, k)), h('td', {}, t))))),
    h('label', { class: 'option' }, single, 'Shortcuts of one character; without them Enter, Esc and the keys of the picture still work'),
    h('p', { class: 'ends' }, h('button', { type: 'button', onclick: () => d.close() }, 'Close')),
  )
}

document.addEventListener('keydown', (e) => {
  if (!session || typing(e) || (!singleKeys && e.key.length === 1)) return
  if (e.key === '?') {
    e.preventDefault()
    help()
  } else page?.key?.(e)
})
// A file that is dropped beside the place for it must not replace the page.
for (const what of ['dragover', 'drop']) window.addEventListener(what, (e) => e.preventDefault())
window.addEventListener('hashchange', route)
window.addEventListener('pagehide', () => page?.leave())
// Back to a page that the browser kept: it was left, and may be out of date.
window.addEventListener('pageshow', (e) => e.persisted && void start())

// Signs out whoever went away. The server does the same by itself; this also
// clears the screen. Tabs share a session: use of one is use of all.
let seen = Date.now()
let told = seen
const tabs = new BroadcastChannel('attention')
tabs.onmessage = (e: MessageEvent<number>) => (seen = told = Math.max(seen, e.data))
for (const what of ['pointerdown', 'pointermove', 'keydown', 'wheel']) {
  window.addEventListener(what, () => (seen = Date.now()), { passive: true, capture: true })
}
let watch: ReturnType<typeof setInterval> | undefined
function attend(s: Session): void {
  seen = Date.now()
  let kept = seen
  clearInterval(watch)
  watch = setInterval(() => {
    if (!session) return clearInterval(watch)
    if (seen > told) tabs.postMessage((told = seen))
    const idle = (Date.now() - seen) / 1000
    if (idle >= s.idle_seconds) {
      void signOut('You were signed out because nothing happened for a while.')
    } else if (seen > kept && Date.now() - kept > (s.idle_seconds * 1000) / 4) {
      // Reading a case is use, though it asks the server for nothing.
      kept = Date.now()
      void call('GET', '/session').catch(() => {})
    }
  }, 5000)
}

async function start(): Promise<void> {
  try {
    begin(await call<Session>('GET', '/session'))
  } catch (e) {
    const p = asProblem(e)
    if (p.status === 401) signedOut()
    else show(app, h('main', { class: 'alone' }, problemBox(p, () => void start())))
  }
}
void start()
