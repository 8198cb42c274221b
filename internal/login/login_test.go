package login

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"math/big"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"neuroscreen"
	"neuroscreen/internal/httpapi"
)

// issuer is a small identity provider: it signs in whoever comes, and gives
// codes that are redeemed once, with the verifier of their challenge.
type issuer struct {
	*httptest.Server
	key    *rsa.PrivateKey
	change func(claims map[string]any) // of the next ID token
	codes  map[string]url.Values       // of the requests they were given for
}

func newIssuer(t *testing.T) *issuer {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	i := &issuer{key: key, codes: map[string]url.Values{}}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /.well-known/openid-configuration", func(w http.ResponseWriter, r *http.Request) {
		json.NewEncoder(w).Encode(map[string]any{"issuer": i.URL, "authorization_endpoint": i.URL + "/authorize", "token_endpoint": i.URL + "/token",
			"jwks_uri": i.URL + "/keys", "id_token_signing_alg_values_supported": []string{"RS256"}})
	})
	mux.HandleFunc("GET /keys", func(w http.ResponseWriter, r *http.Request) {
		json.NewEncoder(w).Encode(map[string]any{"keys": []any{map[string]any{"kty": "RSA", "kid": "1", "alg": "RS256", "use": "sig",
			"n": encode(key.N.Bytes()), "e": encode(big.NewInt(int64(key.E)).Bytes())}}})
	})
	mux.HandleFunc("POST /token", func(w http.ResponseWriter, r *http.Request) {
		asked, ok := i.codes[r.FormValue("code")]
		delete(i.codes, r.FormValue("code"))
		sum := sha256.Sum256([]byte(r.FormValue("code_verifier")))
		if !ok || asked.Get("code_challenge") != encode(sum[:]) || asked.Get("code_challenge_method") != "S256" || asked.Get("redirect_uri") != r.FormValue("redirect_uri") {
			http.Error(w, `{"error":"invalid_grant"}`, http.StatusBadRequest)
			return
		}
		claims := map[string]any{"iss": i.URL, "sub": "person-1", "aud": "neuroscreen", "nonce": asked.Get("nonce"), "name": "Dr. Test",
			"roles": []string{"mail", "neuroscreen-clinician"}, "iat": time.Now().Unix(), "exp": time.Now().Add(time.Minute).Unix()}
		if i.change != nil {
			i.change(claims)
		}
		w.Header().Set("Content-Type", "application/json")
		json.NewEncoder(w).Encode(map[string]any{"access_token": "x", "token_type": "Bearer", "id_token": i.sign(t, claims)})
	})
	i.Server = httptest.NewServer(mux)
	t.Cleanup(i.Close)
	return i
}

func encode(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

func (i *issuer) sign(t *testing.T, claims map[string]any) string {
	t.Helper()
	body, err := json.Marshal(claims)
	if err != nil {
		t.Fatal(err)
	}
	head := encode([]byte(`{"alg":"RS256","kid":"1"}`)) + "." + encode(body)
	sum := sha256.Sum256([]byte(head))
	sig, err := rsa.SignPKCS1v15(rand.Reader, i.key, crypto.SHA256, sum[:])
	if err != nil {
		t.Fatal(err)
	}
	return head + "." + encode(sig)
}

// authorize is what the person's browser does at the provider.
func (i *issuer) authorize(t *testing.T, address string) (code string) {
	t.Helper()
	u, err := url.Parse(address)
	if err != nil || !strings.HasPrefix(address, i.URL+"/authorize?") {
		t.Fatalf("sent to %q, %v", address, err)
	}
	code = rand.Text()
	i.codes[code] = u.Query()
	return code
}

func TestSignIn(t *testing.T) {
	i := newIssuer(t)
	p := New(Config{Issuer: i.URL, ClientID: "neuroscreen", PublicURL: "https://ns.example/", RoleClaim: "roles", Client: i.Client()})
	attempt := httpapi.Attempt{State: "state-1", Nonce: "nonce-1", Verifier: strings.Repeat("v", 43)}
	begin := func(t *testing.T) string {
		t.Helper()
		address, err := p.URL(t.Context(), attempt)
		if err != nil {
			t.Fatal(err)
		}
		return i.authorize(t, address)
	}

	t.Run("a clinician", func(t *testing.T) {
		code := begin(t)
		asked := i.codes[code]
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
		i.change = func(c map[string]any) { c["roles"] = []string{"mail"} }
		_, err := p.Person(t.Context(), attempt, begin(t))
		if e := neuroscreen.AsError(err); e == nil || e.Type != "no-role" || e.Code != neuroscreen.CodeForbidden {
			t.Errorf("%v", err)
		}
	})
	t.Run("another's verifier", func(t *testing.T) {
		i.change = nil
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
			i.change = change
			if got, err := p.Person(t.Context(), attempt, begin(t)); err == nil {
				t.Errorf("taken: %+v", got)
			}
		})
	}
	t.Run("a token that another key signed", func(t *testing.T) {
		i.change = nil
		code := begin(t)
		old := i.key
		var err error
		if i.key, err = rsa.GenerateKey(rand.Reader, 2048); err != nil {
			t.Fatal(err)
		}
		defer func() { i.key = old }()
		if _, err := p.Person(t.Context(), attempt, code); err == nil {
			t.Error("taken")
		}
	})
}

func TestProviderThatIsAwayIsAskedAgain(t *testing.T) {
	i := newIssuer(t)
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
