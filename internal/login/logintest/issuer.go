// Package logintest is an identity provider for tests.
package logintest

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
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// Issuer is a small identity provider: it signs in whoever comes, as Dr. Test
// with the role clinician, and gives codes that are redeemed once, with the
// verifier of their challenge.
type Issuer struct {
	*httptest.Server
	Key    *rsa.PrivateKey
	Change func(claims map[string]any) // of the next ID tokens
	Away   atomic.Bool                 // it answers nothing but 502

	mu        sync.Mutex
	codes     map[string]url.Values // of the requests they were given for
	published rsa.PublicKey
	keyID     string
	asked     map[string]int // how often for each path
}

// New starts an issuer for the time of a test.
func New(t testing.TB) *Issuer {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	i := &Issuer{Key: key, codes: map[string]url.Values{}, published: key.PublicKey, keyID: "1", asked: map[string]int{}}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /.well-known/openid-configuration", func(w http.ResponseWriter, r *http.Request) {
		json.NewEncoder(w).Encode(map[string]any{"issuer": i.URL, "authorization_endpoint": i.URL + "/authorize", "token_endpoint": i.URL + "/token",
			"jwks_uri": i.URL + "/keys", "id_token_signing_alg_values_supported": []string{"RS256"}})
	})
	mux.HandleFunc("GET /keys", func(w http.ResponseWriter, r *http.Request) {
		i.mu.Lock()
		key, id := i.published, i.keyID
		i.mu.Unlock()
		json.NewEncoder(w).Encode(map[string]any{"keys": []any{map[string]any{"kty": "RSA", "kid": id, "alg": "RS256", "use": "sig",
			"n": encode(key.N.Bytes()), "e": encode(big.NewInt(int64(key.E)).Bytes())}}})
	})
	mux.HandleFunc("GET /authorize", func(w http.ResponseWriter, r *http.Request) {
		asked := r.URL.Query()
		back := url.Values{"code": {i.code(asked)}, "state": {asked.Get("state")}}
		http.Redirect(w, r, asked.Get("redirect_uri")+"?"+back.Encode(), http.StatusSeeOther)
	})
	mux.HandleFunc("POST /token", func(w http.ResponseWriter, r *http.Request) {
		i.mu.Lock()
		asked, ok := i.codes[r.FormValue("code")]
		delete(i.codes, r.FormValue("code"))
		i.mu.Unlock()
		sum := sha256.Sum256([]byte(r.FormValue("code_verifier")))
		if !ok || asked.Get("code_challenge") != encode(sum[:]) || asked.Get("code_challenge_method") != "S256" || asked.Get("redirect_uri") != r.FormValue("redirect_uri") {
			http.Error(w, `{"error":"invalid_grant"}`, http.StatusBadRequest)
			return
		}
		claims := i.claims()
		claims["nonce"] = asked.Get("nonce")
		if i.Change != nil {
			i.Change(claims)
		}
		w.Header().Set("Content-Type", "application/json")
		json.NewEncoder(w).Encode(map[string]any{"access_token": "x", "token_type": "Bearer", "id_token": i.sign(t, claims)})
	})
	i.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		i.mu.Lock()
		i.asked[r.URL.Path]++
		i.mu.Unlock()
		if i.Away.Load() {
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		mux.ServeHTTP(w, r)
	}))
	t.Cleanup(i.Close)
	return i
}

func (i *Issuer) claims() map[string]any {
	return map[string]any{"iss": i.URL, "sub": "person-1", "aud": "neuroscreen", "name": "Dr. Test",
		"roles": []string{"mail", "neuroscreen-clinician"}, "iat": time.Now().Unix(), "exp": time.Now().Add(time.Minute).Unix()}
}

// Token is one of Dr. Test, with what change makes of it.
func (i *Issuer) Token(t testing.TB, change func(claims map[string]any)) string {
	t.Helper()
	claims := i.claims()
	if change != nil {
		change(claims)
	}
	return i.sign(t, claims)
}

// Rotate has the issuer sign with a new key from now on, and publish that only.
func (i *Issuer) Rotate(t testing.TB) {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	i.Key, i.published, i.keyID = key, key.PublicKey, rand.Text()
}

// Asked tells how often a path was asked for.
func (i *Issuer) Asked(path string) int {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.asked[path]
}

func encode(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

func (i *Issuer) sign(t testing.TB, claims map[string]any) string {
	body, err := json.Marshal(claims)
	if err != nil {
		t.Error(err)
	}
	i.mu.Lock()
	head := encode([]byte(`{"alg":"RS256","kid":"`+i.keyID+`"}`)) + "." + encode(body)
	i.mu.Unlock()
	sum := sha256.Sum256([]byte(head))
	sig, err := rsa.SignPKCS1v15(rand.Reader, i.Key, crypto.SHA256, sum[:])
	if err != nil {
		t.Error(err)
	}
	return head + "." + encode(sig)
}

// Authorize is what the person's browser does at the provider: what it was
// asked for there, and the code that it brings back.
func (i *Issuer) Authorize(t testing.TB, address string) (asked url.Values, code string) {
	t.Helper()
	u, err := url.Parse(address)
	if err != nil || !strings.HasPrefix(address, i.URL+"/authorize?") {
		t.Fatalf("sent to %q, %v", address, err)
	}
	return u.Query(), i.code(u.Query())
}

func (i *Issuer) code(asked url.Values) string {
	code := rand.Text()
	i.mu.Lock()
	defer i.mu.Unlock()
	i.codes[code] = asked
	return code
}
