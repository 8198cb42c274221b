package httpapi

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"neuroscreen"
	"neuroscreen/internal/store"
)

// fakeProvider knows one person, by the code C.
type fakeProvider struct{}

func (fakeProvider) URL(_ context.Context, a Attempt) (string, error) {
	return "https://provider.example/authorize?" + url.Values{"state": {a.State}, "nonce": {a.Nonce}}.Encode(), nil
}

func (fakeProvider) Person(_ context.Context, a Attempt, code string) (store.Person, error) {
	if code != "C" || a.Verifier == "" {
		return store.Person{}, neuroscreen.Errorf(neuroscreen.CodeForbidden, "no-role", "no role here")
	}
	return store.Person{Issuer: "https://provider.example", Subject: "1", Name: "Dr. Test", Role: clinician}, nil
}

func attemptOf(a Attempt) string {
	b, err := json.Marshal(a)
	if err != nil {
		panic(err)
	}
	return attemptCookie + "=" + base64.RawURLEncoding.EncodeToString(b)
}

// signIn returns the cookie and the token for changes.
func (e *env) signIn(key string) (cookie, csrf string) {
	e.Helper()
	a := e.do("POST", "/session", "", withBody("application/json", []byte(`{"key":"`+key+`"}`)))
	a.want(200, "")
	var s Session
	a.json(&s)
	set, err := http.ParseSetCookie(a.header.Get("Set-Cookie"))
	if err != nil {
		e.Fatal(err)
	}
	if !set.HttpOnly || set.SameSite != http.SameSiteStrictMode || set.Path != "/" || set.MaxAge != 0 {
		e.Errorf("cookie %s", a.header.Get("Set-Cookie"))
	}
	return sessionCookie + "=" + set.Value, val(s.CsrfToken)
}

func TestSession(t *testing.T) {
	e := setup(t)
	cookie, csrf := e.signIn(e.a.keys[clinician])
	with := header("Cookie", cookie)

	a := e.do("GET", "/session", "", with)
	a.want(200, "")
	var s Session
	if a.json(&s); s.Name != "clinician" || s.Site != "a" || val(s.CsrfToken) != csrf || s.IdleSeconds != 1800 {
		t.Errorf("session: %s", a.body)
	}
	if strings.Contains(string(a.body), e.a.keys[clinician]) {
		t.Error("the answer holds the key")
	}
	e.do("GET", "/v1/cases", "", with).want(200, "")
	e.do("GET", "/v1/keys", "", with).want(403, "role-not-allowed")
	e.do("GET", "/v1/cases", "", header("Cookie", sessionCookie+"=x")).want(401, "session-ended")
	// A key in a header is the one that counts.
	e.do("GET", "/v1/cases", "nsk_x", with).want(401, "invalid-key")

	e.do("DELETE", "/session", "", with).want(403, "csrf")
	a = e.do("DELETE", "/session", "", with, header(csrfHeader, csrf))
	a.want(204, "")
	if !strings.Contains(a.header.Get("Set-Cookie"), "Max-Age=0") {
		t.Errorf("cookie %s", a.header.Get("Set-Cookie"))
	}
	e.do("GET", "/session", "", with).want(401, "session-ended")
}

func TestSessionCookieIsSecureOverTLS(t *testing.T) {
	e := setup(t)
	a := e.do("POST", "/session", "", withBody("application/json", []byte(`{"key":"`+e.a.keys[admin]+`"}`)), header("X-Forwarded-Proto", "https"))
	if !strings.Contains(a.header.Get("Set-Cookie"), "Secure") {
		t.Errorf("cookie %s", a.header.Get("Set-Cookie"))
	}
}

// TestForgedChanges tries every changing route in a session as another site's
// page would: nothing passes without the token, nor with it from elsewhere.
func TestForgedChanges(t *testing.T) {
	e := setup(t)
	scan := e.upload(&e.a, "SUBJ-17", 1)
	cookie, csrf := e.signIn(e.a.keys[admin])
	for _, c := range calls {
		if c.method == "GET" || c.method == "HEAD" || operations[c.operation].public { // changes nothing, or needs no session
			continue
		}
		for name, edit := range map[string]func(*http.Request){
			"no token":         func(*http.Request) {},
			"wrong token":      header(csrfHeader, strings.Repeat("0", len(csrf))),
			"from another one": func(r *http.Request) { r.Header.Set(csrfHeader, csrf); r.Header.Set("Sec-Fetch-Site", "cross-site") },
			"by its origin": func(r *http.Request) {
				r.Header.Set(csrfHeader, csrf)
				r.Header.Set("Origin", "https://elsewhere.example")
			},
		} {
			e := e.in(t)
			req := e.request(c.method, strings.NewReplacer("{scan}", scan.ID.String(), "{key}", scan.ID.String()).Replace(c.path), "")
			withBody("application/json", []byte(c.body))(req)
			req.Header.Set("Cookie", cookie)
			edit(req)
			a := e.send(req)
			if a.status != 403 || a.problem.Type != "/problems/csrf" {
				t.Errorf("%s, %s: %d %s", c.operation, name, a.status, a.body)
			}
		}
	}
	e.do("POST", "/session", "", withBody("application/json", []byte(`{"key":"`+e.a.keys[admin]+`"}`)), header("Sec-Fetch-Site", "cross-site")).want(403, "csrf")
}

func TestSessionsEnd(t *testing.T) {
	e := setup(t, func(c *Config) { c.Sessions = store.SessionLimits{Idle: 400 * time.Millisecond, Whole: time.Hour} })
	t.Run("with the key", func(t *testing.T) {
		e := e.in(t)
		secret, rec, err := e.store.CreateKey(t.Context(), e.a.id, store.System, clinician, "leaves")
		if err != nil {
			t.Fatal(err)
		}
		cookie, _ := e.signIn(secret)
		if _, err := e.store.RevokeKey(t.Context(), e.a.id, store.System, rec.ID); err != nil {
			t.Fatal(err)
		}
		e.do("GET", "/session", "", header("Cookie", cookie)).want(401, "session-ended")
	})
	t.Run("without use, whatever the page does on its own", func(t *testing.T) {
		e := e.in(t)
		cookie, _ := e.signIn(e.a.keys[clinician])
		with := header("Cookie", cookie)
		ended := time.Now().Add(5 * time.Second)
		for {
			e.do("GET", "/v1/cases/events", "", with)
			if a := e.do("GET", "/v1/cases", "", with, header(unattendedHeader, "1")); a.status == 401 {
				a.want(401, "session-ended")
				return
			}
			if time.Now().After(ended) {
				t.Fatal("the session goes on")
			}
		}
	})
}

func TestProviderSignIn(t *testing.T) {
	e := setup(t)
	if !strings.Contains(string(e.do("GET", "/", "").body), "<body data-provider>") {
		t.Error("the page is not told that there is a provider")
	}
	a := e.do("GET", "/session/provider", "")
	a.want(303, "")
	to, err := url.Parse(a.header.Get("Location"))
	if err != nil || to.Host != "provider.example" || to.Query().Get("state") == "" {
		t.Fatalf("sent to %q, %v", a.header.Get("Location"), err)
	}
	set, err := http.ParseSetCookie(a.header.Get("Set-Cookie"))
	if err != nil || !set.HttpOnly || set.SameSite != http.SameSiteLaxMode || set.Path != attemptPath {
		t.Errorf("cookie %v, %v", set, err)
	}
	with := header("Cookie", attemptCookie+"="+set.Value)
	back := "/session/provider/callback?state=" + to.Query().Get("state")

	e.do("GET", back+"&code=C", "").want(403, "provider-failed") // another browser
	e.do("GET", "/session/provider/callback?state=forged&code=C", "", with).want(403, "provider-failed")
	e.do("GET", back+"&error=access_denied", "", with).want(403, "provider-failed")
	e.do("GET", back+"&code=wrong", "", with).want(403, "no-role")

	var first Session
	for range 2 {
		a = e.do("GET", back+"&code=C&scope=openid+profile&authuser=0", "", with) // providers add their own
		a.want(200, "")
		session, err := http.ParseSetCookie(a.header.Get("Set-Cookie"))
		if err != nil {
			t.Fatal(err)
		}
		a = e.do("GET", "/session", "", header("Cookie", sessionCookie+"="+session.Value))
		a.want(200, "")
		if a.json(&first); first.Name != "Dr. Test" || first.Role != clinician || first.Site != "a" {
			t.Errorf("session: %s", a.body)
		}
	}
	people := 0
	keys, err := e.store.ListKeys(t.Context(), e.a.id)
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range keys {
		if k.Label == "Dr. Test" {
			people++
			if _, err := e.store.RevokeKey(t.Context(), e.a.id, store.System, k.ID); err != nil {
				t.Fatal(err)
			}
		}
	}
	if people != 1 {
		t.Errorf("%d keys stand for one person", people)
	}
	e.do("GET", back+"&code=C", "", with).want(403, "person-revoked")
}

func TestWithoutProvider(t *testing.T) {
	e := setup(t, func(c *Config) { c.Login = nil })
	e.do("GET", "/session/provider", "").want(404, "no-provider")
	if strings.Contains(string(e.do("GET", "/", "").body), "data-provider") {
		t.Error("the page offers a provider that is not there")
	}
}
