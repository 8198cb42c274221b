package login

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"neuroscreen"
	"neuroscreen/internal/login/logintest"
)

// clock is set by a test.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) read() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) pass(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

func holder(t *testing.T) (*Provider, *logintest.Issuer, *clock) {
	t.Helper()
	i, c := logintest.New(t), &clock{now: time.Now()}
	return New(Config{Issuer: i.URL, ClientID: "neuroscreen", Audiences: []string{"imaging"}, PublicURL: "https://ns.example", RoleClaim: "roles", Client: i.Client(), Now: c.read}), i, c
}

func wantError(t *testing.T, err error, code neuroscreen.Code, typ string) {
	t.Helper()
	if e := neuroscreen.AsError(err); e == nil || e.Code != code || e.Type != typ || e.Message == "" {
		t.Errorf("%v, want %s %s", err, code, typ)
	}
}

func TestHolder(t *testing.T) {
	p, i, _ := holder(t)
	for name, change := range map[string]func(map[string]any){
		"an ID token":                           nil,
		"an access token for our audience":      func(c map[string]any) { c["aud"] = []string{"account", "imaging"}; c["azp"] = "script" },
		"valid since now, on a clock of others": func(c map[string]any) { c["nbf"] = time.Now().Add(30 * time.Second).Unix() },
	} {
		t.Run(name, func(t *testing.T) {
			got, err := p.Holder(t.Context(), i.Token(t, change))
			if err != nil {
				t.Fatal(err)
			}
			if got.Issuer != i.URL || got.Subject != "person-1" || got.Name != "Dr. Test" || got.Role != neuroscreen.Clinician {
				t.Errorf("%+v", got)
			}
		})
	}
	t.Run("no role here", func(t *testing.T) {
		for _, roles := range []any{[]string{"mail"}, "administrator", nil} {
			_, err := p.Holder(t.Context(), i.Token(t, func(c map[string]any) { c["roles"] = roles }))
			wantError(t, err, neuroscreen.CodeForbidden, "no-role")
		}
	})
	for name, change := range map[string]func(map[string]any){
		"another client's":    func(c map[string]any) { c["aud"] = "mail" },
		"nobody's in special": func(c map[string]any) { delete(c, "aud") },
		"another issuer's":    func(c map[string]any) { c["iss"] = "https://elsewhere.example" },
		"run out":             func(c map[string]any) { c["exp"] = time.Now().Add(-time.Second).Unix() },
		"without an end":      func(c map[string]any) { delete(c, "exp") },
		"not valid yet":       func(c map[string]any) { c["nbf"] = time.Now().Add(time.Hour).Unix() },
		"without a person":    func(c map[string]any) { delete(c, "sub") },
	} {
		t.Run(name, func(t *testing.T) {
			_, err := p.Holder(t.Context(), i.Token(t, change))
			wantError(t, err, neuroscreen.CodeUnauthenticated, "invalid-token")
		})
	}

	encode := base64.RawURLEncoding.EncodeToString
	parts := strings.Split(i.Token(t, nil), ".")
	admin := strings.Split(i.Token(t, func(c map[string]any) { c["roles"] = "admin" }), ".")
	// By a shared secret: the public key, which everybody has.
	hmacHead := encode([]byte(`{"alg":"HS256","kid":"1"}`)) + "." + parts[1]
	mac := hmac.New(sha256.New, x509.MarshalPKCS1PublicKey(&i.Key.PublicKey))
	mac.Write([]byte(hmacHead))
	for name, token := range map[string]string{
		"unsigned":            encode([]byte(`{"alg":"none"}`)) + "." + parts[1] + ".",
		"without a signature": parts[0] + "." + parts[1] + ".",
		"by a shared secret":  hmacHead + "." + encode(mac.Sum(nil)),
		"with changed claims": parts[0] + "." + admin[1] + "." + parts[2],
		"no token":            "a.b.c",
		"three times nothing": "..",
	} {
		t.Run(name, func(t *testing.T) {
			_, err := p.Holder(t.Context(), token)
			wantError(t, err, neuroscreen.CodeUnauthenticated, "invalid-token")
		})
	}
	t.Run("that another key signed", func(t *testing.T) {
		old := i.Key
		defer func() { i.Key = old }()
		var err error
		if i.Key, err = rsa.GenerateKey(rand.Reader, 2048); err != nil {
			t.Fatal(err)
		}
		_, err = p.Holder(t.Context(), i.Token(t, nil))
		wantError(t, err, neuroscreen.CodeUnauthenticated, "invalid-token")
	})
}

// TestKeysAreKept: the issuer is asked once, again when a key is not known, but
// not for every made-up one, and after an hour.
func TestKeysAreKept(t *testing.T) {
	p, i, clock := holder(t)
	long := func(c map[string]any) { c["exp"] = time.Now().Add(24 * time.Hour).Unix() }
	token := i.Token(t, long)
	take := func(token string) {
		t.Helper()
		if _, err := p.Holder(t.Context(), token); err != nil {
			t.Error(err)
		}
	}
	asked := func(configuration, keys int) {
		t.Helper()
		if c, k := i.Asked("/.well-known/openid-configuration"), i.Asked("/keys"); c != configuration || k != keys {
			t.Errorf("asked %d times for the configuration and %d times for the keys, want %d and %d", c, k, configuration, keys)
		}
	}
	for range 3 {
		take(token)
	}
	asked(1, 1)
	clock.pass(askAgain)
	forged := logintest.New(t)
	forged.Rotate(t)
	for range 3 {
		_, err := p.Holder(t.Context(), forged.Token(t, func(c map[string]any) { c["iss"] = i.URL }))
		wantError(t, err, neuroscreen.CodeUnauthenticated, "invalid-token")
	}
	asked(1, 2)
	clock.pass(askAgain)
	i.Rotate(t)
	take(i.Token(t, long))
	asked(1, 3)
	// Taken back by the issuer, the old key counts no more.
	_, err := p.Holder(t.Context(), token)
	wantError(t, err, neuroscreen.CodeUnauthenticated, "invalid-token")
	i.Rotate(t)
	clock.pass(keysFor)
	take(i.Token(t, long))
	asked(2, 4)
}

// TestIssuerAway: nobody comes in while the issuer can't be asked, and nobody
// waits for it over and over.
func TestIssuerAway(t *testing.T) {
	t.Run("from the start", func(t *testing.T) {
		p, i, clock := holder(t)
		i.Away.Store(true)
		for range 3 {
			_, err := p.Holder(t.Context(), i.Token(t, nil))
			wantError(t, err, neuroscreen.CodeUnavailable, "provider-unavailable")
		}
		if n := i.Asked("/.well-known/openid-configuration"); n != 1 {
			t.Errorf("asked %d times", n)
		}
		i.Away.Store(false)
		clock.pass(askAgain)
		if _, err := p.Holder(t.Context(), i.Token(t, nil)); err != nil {
			t.Error(err)
		}
	})
	t.Run("when a key is not known", func(t *testing.T) {
		p, i, clock := holder(t)
		known := i.Token(t, nil)
		if _, err := p.Holder(t.Context(), known); err != nil {
			t.Fatal(err)
		}
		i.Rotate(t)
		i.Away.Store(true)
		clock.pass(askAgain)
		_, err := p.Holder(t.Context(), i.Token(t, nil))
		wantError(t, err, neuroscreen.CodeUnavailable, "provider-unavailable")
		if _, err := p.Holder(t.Context(), known); err != nil {
			t.Errorf("a token of a known key: %v", err)
		}
	})
	t.Run("when its keys are old", func(t *testing.T) {
		p, i, clock := holder(t)
		token := i.Token(t, func(c map[string]any) { c["exp"] = time.Now().Add(24 * time.Hour).Unix() })
		if _, err := p.Holder(t.Context(), token); err != nil {
			t.Fatal(err)
		}
		i.Away.Store(true)
		clock.pass(keysFor)
		_, err := p.Holder(t.Context(), token)
		wantError(t, err, neuroscreen.CodeUnavailable, "provider-unavailable")
	})
	t.Run("behind a page of somebody else's", func(t *testing.T) {
		page := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { w.Write([]byte("<title>Log in to the network</title>")) }))
		defer page.Close()
		p := New(Config{Issuer: page.URL, ClientID: "neuroscreen", RoleClaim: "roles"})
		_, err := p.Holder(t.Context(), "a.b.c")
		wantError(t, err, neuroscreen.CodeUnavailable, "provider-unavailable")
	})
}
