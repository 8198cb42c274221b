package httpapi

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/google/uuid"

	"neuroscreen"
	"neuroscreen/internal/store"
)

// Provider is an identity provider (OpenID Connect, code flow with PKCE).
type Provider interface {
	// URL is where the browser signs in.
	URL(ctx context.Context, a Attempt) (string, error)
	// Person is who signed in there. Errors: CodeForbidden "no-role" for
	// somebody who may not come in.
	Person(ctx context.Context, a Attempt, code string) (store.Person, error)
	// Holder is whom it gave a token (JWT) that a call came with. Errors:
	// CodeUnauthenticated "invalid-token"; CodeForbidden "no-role";
	// CodeUnavailable "provider-unavailable".
	Holder(ctx context.Context, token string) (store.Person, error)
}

// Attempt to sign in: what the browser keeps until it comes back.
type Attempt struct {
	State    string `json:"s"` // against answers to somebody else's attempt
	Nonce    string `json:"n"` // against tokens of another attempt
	Verifier string `json:"v"` // PKCE, RFC 7636
}

// Login is a provider and the site that its people belong to.
type Login struct {
	Provider Provider
	Site     uuid.UUID
}

const (
	attemptCookie = "neuroscreen_attempt"
	attemptPath   = "/session/provider"
	attemptFor    = 10 * time.Minute
)

func (s *Server) StartProviderSignIn(ctx context.Context, _ StartProviderSignInRequestObject) (StartProviderSignInResponseObject, error) {
	if s.cfg.Login == nil {
		return nil, errNoProvider()
	}
	a := Attempt{State: rand.Text(), Nonce: rand.Text(), Verifier: rand.Text() + rand.Text()}
	to, err := s.cfg.Login.Provider.URL(ctx, a)
	if err != nil {
		return nil, providerFailed(err)
	}
	value, err := json.Marshal(a)
	if err != nil {
		return nil, err
	}
	c := attempt(exchangeFrom(ctx).req)
	c.Value, c.MaxAge = base64.RawURLEncoding.EncodeToString(value), int(attemptFor.Seconds())
	return StartProviderSignIn303Response{Headers: StartProviderSignIn303ResponseHeaders{Location: to, SetCookie: c.String()}}, nil
}

// attempt is Lax, because the browser comes back from another site.
func attempt(r *http.Request) http.Cookie {
	return http.Cookie{Name: attemptCookie, Path: attemptPath, HttpOnly: true, SameSite: http.SameSiteLaxMode, Secure: overTLS(r), MaxAge: -1}
}

func (s *Server) EndProviderSignIn(ctx context.Context, req EndProviderSignInRequestObject) (EndProviderSignInResponseObject, error) {
	if s.cfg.Login == nil {
		return nil, errNoProvider()
	}
	r := exchangeFrom(ctx).req
	var a Attempt
	if c, err := r.Cookie(attemptCookie); err == nil {
		if value, err := base64.RawURLEncoding.DecodeString(c.Value); err == nil {
			_ = json.Unmarshal(value, &a) // else the attempt stays empty and is refused
		}
	}
	p := req.Params
	if a.State == "" || subtle.ConstantTimeCompare([]byte(a.State), []byte(val(p.State))) != 1 {
		return nil, neuroscreen.FieldErrorf(neuroscreen.CodeForbidden, "provider-failed", "state", "this answer belongs to no sign-in that was begun here; begin again")
	}
	if p.Error != nil || val(p.Code) == "" {
		return nil, neuroscreen.Errorf(neuroscreen.CodeForbidden, "provider-failed", "the identity provider answered %q", clip(val(p.Error)))
	}
	person, err := s.cfg.Login.Provider.Person(ctx, a, *p.Code)
	if err != nil {
		return nil, providerFailed(err)
	}
	key, err := s.cfg.Store.EnsurePerson(ctx, s.cfg.Login.Site, person)
	if err != nil {
		return nil, err
	}
	token, _, err := s.startSession(ctx, key)
	if err != nil {
		return nil, err
	}
	return signedIn{cookie(r, token)}, nil
}

// isToken tells a provider's token (JWT, RFC 7519) from a key, which has no dot.
func isToken(bearer string) bool { return strings.Count(bearer, ".") == 2 }

// tokenKey returns the key that stands for a token's holder, with the token's
// role. No cookie carries it, so that no other site's page can send it.
func (s *Server) tokenKey(ctx context.Context, token string) (store.KeyRecord, error) {
	if s.cfg.Login == nil {
		return store.KeyRecord{}, neuroscreen.Errorf(neuroscreen.CodeUnauthenticated, "invalid-token", "no identity provider is configured here, so that no tokens are taken; send a key")
	}
	person, err := s.cfg.Login.Provider.Holder(ctx, token)
	if err != nil {
		return store.KeyRecord{}, err
	}
	return s.cfg.Store.TokenKey(ctx, s.cfg.Login.Site, person)
}

func errNoProvider() error {
	return neuroscreen.Errorf(neuroscreen.CodeNotFound, "no-provider", "no identity provider is configured; sign in with a key")
}

// providerFailed passes on what was decided about the person, and nothing else
// of what the provider said.
func providerFailed(err error) error {
	if e := neuroscreen.AsError(err); e.Code == neuroscreen.CodeForbidden {
		return err
	}
	return &neuroscreen.Error{Code: neuroscreen.CodeForbidden, Type: "provider-failed", Message: "the identity provider did not confirm who you are", Err: fmt.Errorf("identity provider: %w", err)}
}

// signedIn goes on by a page of our own: a redirect from the provider's site
// would not carry the new cookie, which is SameSite=Strict.
type signedIn struct{ cookie string }

func (g signedIn) VisitEndProviderSignInResponse(w http.ResponseWriter) error {
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("Set-Cookie", g.cookie)
	return htmlPage(pageHead + `<meta http-equiv="refresh" content="0;url=/">
<title>Signed in</title>
<p>Signed in. <a href="/">Go on</a></p>
`).visit(w)
}
