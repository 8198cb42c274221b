// Who decides on a case holds it meanwhile: another reader sees that, and may
// take it over.
import { call, type Hold, ProblemError, raw } from './api'

export interface Holder {
  /** Why it is not ours, or nothing. */
  heldBy(): string
  take(over?: boolean): Promise<void>
  leave(): void
}

/** lost is called when another reader took the case over. */
export function holder(id: string, lost: (heldBy: string) => void): Holder {
  const at = `/v1/cases/${id}/hold`
  let heldBy = ''
  let ours = false
  let left = false
  let renew: ReturnType<typeof setInterval> | undefined
  const put = (over: boolean): Promise<Hold> => call<Hold>('PUT', at, { body: over ? { take_over: true } : {}, unattended: true })
  const held = (e: unknown): boolean => {
    if (!(e instanceof ProblemError) || e.type !== 'case-held') return false
    clearInterval(renew)
    ours = false
    heldBy = e.message
    return true
  }
  const giveBack = (): void => {
    clearInterval(renew)
    // keepalive lets it go out while the page is being closed; a lost one runs out by itself.
    if (ours) void raw('DELETE', at, { unattended: true, keepalive: true }).catch(() => {})
  }
  return {
    heldBy: () => heldBy,
    async take(over = false) {
      try {
        await put(over)
        heldBy = ''
        ours = true
        clearInterval(renew)
        renew = setInterval(() => void put(false).catch((e) => !left && held(e) && lost(heldBy)), 120_000)
        if (left) giveBack()
      } catch (e) {
        if (!held(e)) throw e
      }
    },
    leave() {
      left = true
      giveBack()
    },
  }
}
