package login

import (
	"crypto/rand"
	"crypto/rsa"
	"net/url"
	"strings"
	"testing"
	"time"

	"neuroscreen"
	"neuroscreen/internal/httpapi"
	"neuroscreen/internal/login/logintest"
)

func TestSignIn(t *testing.T) {
	i := logintest.New(t)
	p := New(Config{Issuer: i.URL, ClientID: "neuroscreen", PublicURL: "https://ns.example/", RoleClaim: "roles", Client: i.Client()})
	attempt := httpapi.Attempt{State: "state-1", Nonce: "nonce-1", Verifier: strings.Repeat("v", 43)}
	start := func(t *testing.T) (asked url.Values, code string) {
		t.Helper()
		address, err := p.URL(t.Context(), attempt)
		if err != nil {
			t.Fatal(err)
		}
		return i.Authorize(t, address)
	}
	begin := func(t *testing.T) string {
		t.Helper()
		_, code := start(t)
		return code
	}

	t.Run("a clinician", func(t *testing.T) {
		asked, code := start(t)
		if asked.Get("state") != "state-1" || asked.Get("response_type") != "code" || asked.Get("redirect_uri") != "https://ns.example/session/provider/callback" {
			t.Errorf("asked %v", asked)
		}
		got, err := p.Person(t.Context(), attempt, code)
		if err != nil {
			t.Fatal(err)
		}
		if got.Issuer != i.URL || got.Subject != "person-1" || got.Name != "Dr. Test" || got.Role != neuroscreen.Clinician {
			t.Errorf("%+v", got)
		}
		if _, err := p.Person(t.Context(), attempt, code); err == nil {
			t.Error("a code was redeemed twice")
		}
	})
	t.Run("no role here", func(t *testing.T) {
		i.Change = func(c map[string]any) { c["roles"] = []string{"mail"} }
		_, err := p.Person(t.Context(), attempt, begin(t))
		if e := neuroscreen.AsError(err); e == nil || e.Type != "no-role" || e.Code != neuroscreen.CodeForbidden {
			t.Errorf("%v", err)
		}
	})
	t.Run("another's verifier", func(t *testing.T) {
		i.Change = nil
		other := attempt
		other.Verifier = strings.Repeat("w", 43)
		if _, err := p.Person(t.Context(), other, begin(t)); err == nil {
			t.Error("taken")
		}
	})
	for name, change := range map[string]func(map[string]any){
		"another attempt's token":   func(c map[string]any) { c["nonce"] = "nonce-2" },
		"a token without a nonce":   func(c map[string]any) { delete(c, "nonce") },
		"another client's token":    func(c map[string]any) { c["aud"] = "mail" },
		"another issuer's token":    func(c map[string]any) { c["iss"] = "https://elsewhere.example" },
		"a token that has run out":  func(c map[string]any) { c["exp"] = time.Now().Add(-time.Minute).Unix() },
		"roles that are no strings": func(c map[string]any) { c["roles"] = []any{1, true} },
	} {
		t.Run(name, func(t *testing.T) {
			i.Change = change
			if got, err := p.Person(t.Context(), attempt, begin(t)); err == nil {
				t.Errorf("taken: %+v", got)
			}
		})
	}
	t.Run("a token that another key signed", func(t *testing.T) {
		i.Change = nil
		code := begin(t)
		old := i.Key
		var err error
		if i.Key, err = rsa.GenerateKey(rand.Reader, 2048); err != nil {
			t.Fatal(err)
		}
		defer func() { i.Key = old }()
		if _, err := p.Person(t.Context(), attempt, code); err == nil {
			t.Error("taken")
		}
	})
}

func TestProviderThatIsAwayIsAskedAgain(t *testing.T) {
	i := logintest.New(t)
	cfg := Config{Issuer: i.URL + "/wrong", ClientID: "neuroscreen", PublicURL: "https://ns.example", RoleClaim: "roles", Client: i.Client()}
	p := New(cfg)
	if _, err := p.URL(t.Context(), httpapi.Attempt{}); err == nil {
		t.Fatal("no error")
	}
	p.cfg.Issuer = i.URL
	if _, err := p.URL(t.Context(), httpapi.Attempt{}); err != nil {
		t.Error(err)
	}
}

func TestRoleOf(t *testing.T) {
	for _, tt := range []struct {
		claim any
		want  neuroscreen.Role
	}{
		{"clinician", neuroscreen.Clinician}, {"openid neuroscreen:admin", neuroscreen.Admin}, {[]any{"neuroscreen-uploader", "researcher"}, neuroscreen.Researcher},
		{nil, ""}, {[]any{}, ""}, {"administrator", ""}, {map[string]any{"admin": true}, ""},
	} {
		if got, ok := roleOf(tt.claim); got != tt.want || ok != (tt.want != "") {
			t.Errorf("%v: %q", tt.claim, got)
		}
	}
}
