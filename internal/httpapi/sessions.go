package httpapi

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"net/http"

	"neuroscreen"
	"neuroscreen/internal/store"
)

const (
	sessionCookie = "neuroscreen_session"
	csrfHeader    = "X-CSRF-Token"
	// Sent by the pages with what no person asked for, so that a page left
	// open does not keep its session alive.
	unattendedHeader = "X-Unattended"
)

// sameOrigin knows by Sec-Fetch-Site or Origin what another site's page sent.
var sameOrigin = http.NewCrossOriginProtection()

func csrfRefused() error {
	return neuroscreen.Errorf(neuroscreen.CodeForbidden, "csrf", "a change in a session needs the header %s and must come from our own pages", csrfHeader)
}

// csrfToken follows from the session's token, which only our pages can ask
// for: another site can have neither.
func csrfToken(session string) string {
	sum := sha256.Sum256([]byte("csrf\x00" + session))
	return hex.EncodeToString(sum[:16])
}

func (s *Server) sessionKey(r *http.Request, token string, used bool) (store.KeyRecord, error) {
	used = used && r.Header.Get(unattendedHeader) == ""
	key, err := s.cfg.Store.SessionKey(r.Context(), token, s.cfg.Sessions, used)
	if err != nil {
		return key, err
	}
	if r.Method == http.MethodGet || r.Method == http.MethodHead {
		return key, nil
	}
	if sameOrigin.Check(r) != nil || subtle.ConstantTimeCompare([]byte(r.Header.Get(csrfHeader)), []byte(csrfToken(token))) != 1 {
		return key, csrfRefused()
	}
	return key, nil
}

func (s *Server) SignIn(ctx context.Context, req SignInRequestObject) (SignInResponseObject, error) {
	r := exchangeFrom(ctx).req
	if sameOrigin.Check(r) != nil {
		return nil, csrfRefused() // else a page elsewhere could sign its reader in as another
	}
	key, err := s.cfg.Store.Authenticate(ctx, req.Body.Key)
	if err != nil {
		return nil, err
	}
	token, out, err := s.startSession(ctx, key)
	if err != nil {
		return nil, err
	}
	return SignIn200JSONResponse{Body: out, Headers: SignIn200ResponseHeaders{SetCookie: cookie(r, token)}}, nil
}

func (s *Server) startSession(ctx context.Context, key store.KeyRecord) (token string, out Session, err error) {
	if token, err = s.cfg.Store.CreateSession(ctx, key, s.cfg.Sessions); err != nil {
		return "", Session{}, err
	}
	out, err = s.session(ctx, key, token)
	return token, out, err
}

func (s *Server) GetSession(ctx context.Context, _ GetSessionRequestObject) (GetSessionResponseObject, error) {
	out, err := s.session(ctx, *caller(ctx), exchangeFrom(ctx).session)
	return GetSession200JSONResponse(out), err
}

func (s *Server) session(ctx context.Context, key store.KeyRecord, token string) (Session, error) {
	site, err := s.cfg.Store.Site(ctx, key.SiteID)
	if err != nil {
		return Session{}, err
	}
	out := Session{Name: key.Label, Role: key.Role, Site: site.Name, IdleSeconds: int(s.cfg.Sessions.Idle.Seconds())}
	if token != "" {
		out.CsrfToken = ptr(csrfToken(token))
	}
	return out, nil
}

func (s *Server) SignOut(ctx context.Context, _ SignOutRequestObject) (SignOutResponseObject, error) {
	x := exchangeFrom(ctx)
	if x.session != "" {
		if err := s.cfg.Store.EndSession(ctx, x.session); err != nil {
			return nil, err
		}
	}
	return SignOut204Response{Headers: SignOut204ResponseHeaders{SetCookie: cookie(x.req, "")}}, nil
}

// cookie holds the session's token until the browser is closed; none removes
// it.
func cookie(r *http.Request, token string) string {
	c := http.Cookie{Name: sessionCookie, Value: token, Path: "/", HttpOnly: true, SameSite: http.SameSiteStrictMode, Secure: overTLS(r)}
	if token == "" {
		c.MaxAge = -1
	}
	return c.String()
}

// overTLS also believes a proxy: who lies here gets a cookie that is sent less.
func overTLS(r *http.Request) bool {
	return r.TLS != nil || r.Header.Get("X-Forwarded-Proto") == "https"
}
