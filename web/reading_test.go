package web_test

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"neuroscreen"
	"neuroscreen/internal/client"
)

// refuseAll answers what begins with method and path with a status.
func refuseAll(status int, begins string) func(*http.Request) int {
	return func(r *http.Request) int {
		if strings.HasPrefix(r.Method+" "+r.URL.RequestURI(), begins) {
			return status
		}
		return 0
	}
}

// waitFocus until the focus is on the line of a case.
func (b *browser) waitFocus(subject string) {
	b.Helper()
	b.wait("the focus on "+subject, fmt.Sprintf("document.activeElement?.closest('.cases tbody tr')?.querySelector('th a').textContent === %q", subject))
}

// TestRound: a reader goes from case to case by keys, loses nothing of what he
// began, and finds his place again.
func TestRound(t *testing.T) {
	f := newFront(t)
	url, key := startService(t, invented{t: t, volume: func(string, float64) (float64, float64) { return 3400, 40 }}.use)
	f.before(t, url)
	api := newAPI(t, url, key)
	for n, subject := range []string{"S-A", "S-B", "S-C"} {
		api.submit(t, subject, smallImage(t, n))
	}
	b := newBrowser(t, f.URL)
	b.do(chromedp.Func(func(ctx context.Context, target *chromedp.Target) error {
		_, err := cdp.Call(ctx, target, emulation.SetTimezoneOverride, emulation.SetTimezoneOverrideParams{TimezoneID: "Pacific/Auckland"})
		return err
	}))
	// Pages of two cases; the proxy changes the request before it is passed on.
	f.set(func() {
		f.refuse = func(r *http.Request) int {
			r.URL.RawQuery = strings.Replace(r.URL.RawQuery, "limit=50", "limit=2", 1)
			return 0
		}
	})
	b.signIn(key)
	b.waitText(".live", "live")
	b.do(chromedp.Focus(chromedp.CSS("#more")))
	b.keys(kb.Enter)
	b.waitFocus("S-C")
	f.set(func() { f.refuse = nil })

	b.keys("k", kb.Enter)
	opened := func(subject string) {
		t.Helper()
		b.waitText(".case-head h1", subject)
		b.wait("the picture", "document.querySelector('#viewer')?.dataset.ready === 'true'")
	}
	opened("S-B")
	b.keys("j")
	opened("S-C")
	b.keys("j")
	b.waitText("#told", "No case comes after this one")
	if b.text("#next") != "" {
		t.Error("the last case has a next one")
	}
	b.keys("k")
	opened("S-B")
	b.axe("a case with a next one")

	// Keys work beside what is moved or ticked; the words of a decision outlive
	// its dialog, but are not those of another decision.
	b.do(chromedp.Focus(chromedp.CSS("#opacity")))
	b.keys("r")
	b.wait("the question", "document.activeElement?.id === 'comment'")
	b.keys("labels beside the anatomy", kb.Escape)
	b.do(chromedp.Focus(chromedp.CSS("#outline")))
	b.keys("a")
	b.wait("the question", "document.activeElement?.id === 'comment'")
	if got := eval[string](b, "document.querySelector('#comment').value"); strings.Contains(got, "labels") {
		t.Errorf("accepting begins with %q", got)
	}
	b.keys(kb.Escape, kb.Escape)
	b.waitFocus("S-B")
	b.keys("r")
	b.wait("the draft", "document.querySelector('dialog[open] #comment')?.value.includes('labels beside the anatomy')")
	b.keys(kb.Tab, kb.Enter)
	b.waitText("#told", "Rejected. j: next case.")
	b.waitText(".case-head", "Rejected")
	b.keys("r")
	b.wait("nothing is left of it", "document.querySelector('dialog[open] #comment')?.value.includes('labels') === false")
	b.keys(kb.Escape, kb.Escape)
	b.waitFocus("S-C") // S-B is decided on
	if text := b.text(".cases tbody"); strings.Contains(text, "S-B") {
		t.Errorf("still listed: %s", text)
	}

	// The list changes under hands that are at its filters.
	b.do(chromedp.Focus(chromedp.CSS(".tallies button")))
	api.submit(t, "S-D", smallImage(t, 4))
	b.waitText(".cases tbody", "S-D")
	b.waitText(".tallies button b", "3")
	if !eval[bool](b, "document.activeElement === document.querySelector('.tallies button')") {
		t.Error("the focus was lost")
	}
	b.do(chromedp.Focus(chromedp.CSS(".filters input[type=date]")))
	b.keys("0101", "2024")
	b.wait("the date is typed", "document.activeElement.value === '2024-01-01'")
	b.waitText(".filters", "Clear")
	b.waitText(".cases tbody", "S-D")
	b.wait("the midnight of Auckland", "performance.getEntriesByType('resource').some(e => e.name.includes('received_from=2023-12-31T11%3A00%3A00.000Z'))")
	b.checkNothingKept()
}

// TestLive: the list is called live when it is what the service tells of, and a
// page that waits for something shows it though its stream was refused.
func TestLive(t *testing.T) {
	made := invented{t: t, hold: make(chan struct{}), volume: func(string, float64) (float64, float64) { return 3400, 40 }}
	f := newFront(t)
	url, key := startService(t, made.use)
	f.before(t, url)
	api := newAPI(t, url, key)
	api.submit(t, "S-FIRST", smallImage(t, 0))
	b := newBrowser(t, f.URL)
	b.signIn(key)
	b.waitText(".cases tbody", "S-FIRST")
	b.waitText(".live.on", "live")

	f.set(func() { f.refuse = refuseAll(http.StatusServiceUnavailable, "GET /v1/cases?") })
	api.submit(t, "S-MISSED", smallImage(t, 1))
	b.waitText(".live:not(.on)", "not up to date")
	// The stream comes back and tells what it told before.
	f.CloseClientConnections()
	b.waitText(".live", "connecting")
	b.waitText(".live:not(.on)", "not up to date")
	f.set(func() { f.refuse = nil })
	b.waitText(".live.on", "live")
	if text := b.text(".cases tbody"); !strings.Contains(text, "S-MISSED") {
		t.Errorf("live without the new case: %s", text)
	}

	slow := api.hand(t, smallImage(t, 2), neuroscreen.Metadata{SubjectID: "S-SLOW", AgeYears: ptr(60.0), Scanner: "Slow"})
	f.set(func() { f.refuse = refuseAll(http.StatusTooManyRequests, "GET /v1/scans/"+slow.ID.String()+"/events") })
	b.do(chromedp.Evaluate[chromedp.Void](fmt.Sprintf("location.hash = '#/case/%s'", slow.ID)))
	b.waitText(".verdicts", "Waiting since")
	b.do(chromedp.Evaluate[chromedp.Void]("{ const now = Date.now; Date.now = () => now() + 121e3 }"))
	b.waitText(".verdicts", "longer than usual: tell your administrator")
	close(made.hold)
	if done := api.wait(t, slow); done.State != neuroscreen.Scored {
		t.Fatalf("%s: %v", done.State, done.Reasons)
	}
	b.waitText(".verdict", "Not flagged") // by asking again
	f.set(func() { f.refuse = nil })

	// The worklist's stream, too.
	f.set(func() { f.refuse = refuseAll(http.StatusBadGateway, "GET /v1/cases/events") })
	b.keys(kb.Escape)
	b.waitText(".live", "connecting")
	b.waitText(".cases tbody", "S-SLOW")
	f.set(func() { f.refuse = nil })
	b.waitText(".live.on", "live")
}

// TestSignOut: who signs out is told when he is not; and no tab goes on showing
// what another person had open.
func TestSignOut(t *testing.T) {
	f := newFront(t)
	url, key := startService(t, invented{t: t, volume: func(string, float64) (float64, float64) { return 3400, 40 }}.use)
	f.before(t, url)
	api := newAPI(t, url, key)
	scan := api.submit(t, "S-ONE", smallImage(t, 0))
	other, err := api.CreateKeyWithResponse(t.Context(), client.NewKey{Name: "Dr. Other", Role: neuroscreen.Clinician})
	if err != nil || other.JSON201 == nil {
		t.Fatalf("%v %s", err, other.Body)
	}
	one := newBrowser(t, f.URL)
	one.signIn(key)
	one.waitText(".cases tbody", "S-ONE")
	two := openWindow(t, one.ctx, f.URL)
	two.do(chromedp.Navigate(fmt.Sprintf("%s/#/case/%s", f.URL, scan.ID)))
	two.waitText(".case-head h1", "S-ONE")

	f.set(func() { f.refuse = refuseAll(http.StatusServiceUnavailable, "DELETE /session") })
	one.click("#sign-out")
	one.waitText("main", "You are still signed in")
	one.waitText("main", "close the browser")
	one.axe("still signed in")
	if text := one.text("body"); strings.Contains(text, "S-ONE") {
		t.Errorf("still on the screen: %s", text)
	}
	f.set(func() { f.refuse = nil })
	one.click("[role=alert] button")
	one.wait("the sign-in", "document.activeElement?.id === 'key'")
	two.waitText("main", "You were signed out in another tab.")

	one.signIn(other.JSON201.Secret)
	two.waitText(".top .who", "Dr. Other")
	two.waitText("h1", "Worklist") // not the case that the one before had open

	// Where no message came from the tab that signed in, a refused change tells.
	two.do(chromedp.Evaluate[chromedp.Void](fmt.Sprintf("fetch('/session', {method: 'POST', headers: {'Content-Type': 'application/json'}, body: JSON.stringify({key: %q})})", key)))
	one.do(chromedp.Evaluate[chromedp.Void](fmt.Sprintf("location.hash = '#/case/%s'", scan.ID)))
	one.waitText(".top .who", "first admin key")
	one.waitText("h1", "Worklist")
}
