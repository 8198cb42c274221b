package httpapi

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"neuroscreen"
	"neuroscreen/internal/store"
)

// fakeProvider knows one person, by the code C, and takes tokens that say what
// its answer is to be: ROLE.PERSON.TEXT.
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

func (fakeProvider) Holder(_ context.Context, token string) (store.Person, error) {
	parts := strings.Split(token, ".")
	switch role := neuroscreen.Role(parts[0]); {
	case role == "away":
		return store.Person{}, neuroscreen.Errorf(neuroscreen.CodeUnavailable, "provider-unavailable", "no answer")
	case role == "none":
		return store.Person{}, neuroscreen.Errorf(neuroscreen.CodeForbidden, "no-role", "no role here")
	case slices.Contains(everyone, role):
		return store.Person{Issuer: "https://provider.example", Subject: parts[1], Name: "Dr. Token", Role: role}, nil
	}
	return store.Person{}, neuroscreen.Errorf(neuroscreen.CodeUnauthenticated, "invalid-token", "not ours")
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

// bearer is a token that the fake provider gave.
func bearer(token string) func(*http.Request) { return header("Authorization", "Bearer "+token) }

// TestTokens: a provider's token is taken like a key of its person's role, at
// the provider's site, by everything that is asked of keys.
func TestTokens(t *testing.T) {
	e := setup(t)
	ours, theirs := e.upload(&e.a, "SUBJ-17", 1), e.upload(&e.b, "SUBJ-18", 2)
	person := func(t *testing.T, e *env) (found store.KeyRecord) {
		t.Helper()
		keys, err := e.store.ListKeys(t.Context(), e.a.id)
		if err != nil {
			t.Fatal(err)
		}
		n := 0
		for _, k := range keys {
			if k.Label == "Dr. Token" {
				found = k
				n++
			}
		}
		if n != 1 {
			t.Fatalf("%d keys stand for one person", n)
		}
		return found
	}

	t.Run("the site's data, and not another's", func(t *testing.T) {
		e := e.in(t)
		token := bearer("clinician.1.x")
		e.do("GET", "/v1/scans/"+ours.ID.String(), "", token).want(200, "")
		e.do("GET", "/v1/scans/"+theirs.ID.String(), "", token).want(404, "scan-not-found")
		a := e.do("GET", "/session", "", token)
		a.want(200, "")
		var s Session
		if a.json(&s); s.Name != "Dr. Token" || s.Role != clinician || s.Site != "a" || s.CsrfToken != nil {
			t.Errorf("%s", a.body)
		}
		if a.header.Get("Cache-Control") != "no-store" {
			t.Errorf("%v", a.header)
		}
	})
	t.Run("the role's calls", func(t *testing.T) {
		e := e.in(t)
		e.do("GET", "/v1/keys", "", bearer("clinician.1.x")).want(403, "role-not-allowed")
		e.do("GET", "/v1/keys", "", bearer("admin.1.x")).want(200, "")
		e.do("GET", "/v1/keys", "", bearer("clinician.1.x")).want(403, "role-not-allowed")
		e.do("GET", "/v1/scans?subject_id=SUBJ-17", "", bearer("researcher.1.x")).want(403, "role-not-allowed")
		if a := e.do("GET", "/v1/scans/"+ours.ID.String(), "", bearer("researcher.1.x")); a.status != 200 || strings.Contains(string(a.body), "SUBJ-17") {
			t.Errorf("a researcher gets %d %s", a.status, a.body)
		}
		if k := person(t, e); k.Role != clinician {
			t.Errorf("a token changed the stored role to %s", k.Role)
		}
	})
	t.Run("changes need no token against forged ones", func(t *testing.T) {
		e := e.in(t)
		search := withBody("application/json", []byte(`{"subject_id":"SUBJ-17"}`))
		cookie, _ := e.signIn(e.a.keys[clinician])
		e.do("POST", "/v1/cases/search", "", bearer("clinician.1.x"), search).want(200, "")
		e.do("POST", "/v1/cases/search", "", bearer("clinician.1.x"), header("Cookie", cookie), search).want(200, "")
		e.do("POST", "/v1/cases/search", "", bearer("x.1.x"), header("Cookie", cookie), search).want(401, "invalid-token")
	})
	t.Run("the trail and the log name the person's key", func(t *testing.T) {
		e := e.in(t)
		k := person(t, e)
		audit := e.do("GET", "/v1/audit?scan_id="+ours.ID.String(), e.a.keys[admin])
		audit.want(200, "")
		if !strings.Contains(string(audit.body), k.ID.String()) || k.LastUsed == nil {
			t.Errorf("%+v is not in %s", k, audit.body)
		}
		if !strings.Contains(e.log.String(), "key="+k.Prefix) || strings.Contains(e.log.String(), "clinician.1.x") {
			t.Error("the log does not name the key, or names the token")
		}
	})
	t.Run("not accepted", func(t *testing.T) {
		e := e.in(t)
		a := e.do("GET", "/v1/cases", "", bearer("x.1.x"))
		a.want(401, "invalid-token")
		if h := a.header.Get("WWW-Authenticate"); !strings.Contains(h, `error="invalid_token"`) {
			t.Errorf("WWW-Authenticate: %s", h)
		}
		e.do("GET", "/v1/cases", "", bearer("none.1.x")).want(403, "no-role")
		e.do("GET", "/v1/cases", "clinician.1.x").want(401, "invalid-key") // X-API-Key is for keys
		e.do("GET", "/v1/cases", e.a.keys[clinician], bearer("clinician.1.x")).want(401, "invalid-key")
	})
	t.Run("the provider is away", func(t *testing.T) {
		e := e.in(t)
		a := e.do("GET", "/v1/cases", "", bearer("away.1.x"))
		a.want(503, "provider-unavailable")
		if a.header.Get("Retry-After") == "" {
			t.Error("no Retry-After")
		}
		e.do("GET", "/v1/cases", e.a.keys[clinician]).want(200, "")
	})
	t.Run("revoked", func(t *testing.T) {
		e := e.in(t)
		e.do("DELETE", "/v1/keys/"+person(t, e).ID.String(), e.a.keys[admin]).want(204, "")
		e.do("GET", "/v1/cases", "", bearer("clinician.1.x")).want(403, "person-revoked")
		e.do("GET", "/v1/cases", "", bearer("admin.1.x")).want(403, "person-revoked")
		e.do("GET", "/v1/cases", "", bearer("clinician.2.x")).want(200, "")
	})
}

func TestWithoutProvider(t *testing.T) {
	e := setup(t, func(c *Config) { c.Login = nil })
	e.do("GET", "/v1/cases", "", bearer("clinician.1.x")).want(401, "invalid-token")
	e.do("GET", "/session/provider", "").want(404, "no-provider")
	if strings.Contains(string(e.do("GET", "/", "").body), "data-provider") {
		t.Error("the page offers a provider that is not there")
	}
}
