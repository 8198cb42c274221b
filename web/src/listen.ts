// Events of the service, for as long as a page wants them.
import { call, type Scan, type ScanEvent } from './api'
import { h } from './dom'
import { when } from './format'
import { final } from './marks'

const seconds = (s: number): number => s * 1000

interface On<T> {
  heard(event: T): void
  lost?(): void
  /** Awaited before a stream that the service refused is opened again. */
  reopening?(): Promise<unknown>
}

/** Follows a stream until the function it returns is called. */
export function listen<T>(path: string, type: string, on: On<T>): () => void {
  let stream: EventSource | undefined
  let again: ReturnType<typeof setTimeout> | undefined
  let failures = 0
  let stopped = false
  const open = (): void => {
    if (stopped) return
    const opened = (stream = new EventSource(path))
    opened.addEventListener(type, (e) => {
      failures = 0
      on.heard(JSON.parse((e as MessageEvent<string>).data) as T)
    })
    opened.addEventListener('error', () => {
      on.lost?.()
      // A cut connection the browser mends by itself; any answer but 200 closes the stream for good.
      if (opened.readyState === EventSource.CLOSED) wait()
    })
  }
  const wait = (): void => {
    if (!stopped) again = setTimeout(() => void retry(), seconds(Math.min(30, 5 * ++failures)))
  }
  const retry = async (): Promise<void> => {
    try {
      await call('GET', '/session', { unattended: true }) // finds out if the session has ended
      if (!stopped) await on.reopening?.()
      open()
    } catch {
      wait()
    }
  }
  open()
  return () => {
    stopped = true
    clearTimeout(again)
    stream?.close()
  }
}

export interface Following {
  /** A line on how long it takes. */
  el: HTMLElement
  update(scan: Scan): void
  stop(): void
}

/** Follows a scan to the end of its current run. */
export function followScan(scan: Scan, on: On<ScanEvent>): Following {
  const el = h('p', { class: 'dim', role: 'status' })
  const say = (): void => {
    const since = scan.stages[0]?.at ?? scan.updated_at
    const long = Date.now() - Date.parse(since) > seconds(120)
    const text = `Waiting since ${when(since)}${scan.attempt > 1 ? `, attempt ${scan.attempt}` : ''}.${long ? ' This is longer than usual: tell your administrator.' : ''}`
    if (el.textContent !== text) el.textContent = text // else it would be read out again
  }
  say()
  const tick = setInterval(say, seconds(5))
  const stop = (): void => {
    clearInterval(tick)
    close()
    el.remove()
  }
  const close = listen<ScanEvent>(`/v1/scans/${scan.id}/events`, 'state', {
    ...on,
    heard(e) {
      if (e.run < scan.run) return
      if (final.has(e.state)) stop()
      on.heard(e)
    },
  })
  return {
    el,
    stop,
    update(now) {
      scan = now
      say()
    },
  }
}
