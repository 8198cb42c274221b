package login

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"

	"neuroscreen"
)

// algorithms that a token may be signed with. Without a signature, or with one
// by a shared secret, it is refused whatever the issuer says of itself.
var algorithms = []string{
	oidc.RS256, oidc.RS384, oidc.RS512, oidc.PS256, oidc.PS384, oidc.PS512, oidc.ES256, oidc.ES384, oidc.ES512, oidc.EdDSA,
}

// verify checks a token of the issuer: signature, issuer, times, that it is
// somebody's and was made for one of the audiences. Errors: CodeUnauthenticated
// "invalid-token"; CodeUnavailable "provider-unavailable" when the issuer can't
// be asked for its keys.
func (p *Provider) verify(ctx context.Context, raw string, audiences ...string) (*oidc.IDToken, error) {
	at, err := p.discover(ctx)
	if err != nil {
		return nil, unavailable(err)
	}
	keys := &noticed{KeySet: at.keys}
	id, err := oidc.NewVerifier(p.cfg.Issuer, keys, &oidc.Config{
		SkipClientIDCheck:    true, // it knows one only; they are checked below
		SupportedSigningAlgs: algorithms, Now: p.cfg.Now,
	}).Verify(ctx, raw)
	_, expired := errors.AsType[*oidc.TokenExpiredError](err)
	_, away := errors.AsType[*awayError](keys.err)
	switch {
	case away || keys.err != nil && ctx.Err() != nil:
		return nil, unavailable(keys.err)
	case expired:
		return nil, invalid(err, "the token has run out; get another from the identity provider")
	case err != nil:
		return nil, invalid(err, "the token is not one of the identity provider of this service, was changed, or is not valid yet; get another there")
	case !slices.ContainsFunc(id.Audience, func(a string) bool { return slices.Contains(audiences, a) }):
		return nil, invalid(nil, "the token was not made for this service; ask the identity provider for one whose audience is "+strings.Join(audiences, " or "))
	case id.Subject == "":
		return nil, invalid(nil, "the token does not say whose it is (sub)")
	}
	return id, nil
}

func invalid(err error, message string) error {
	return &neuroscreen.Error{Code: neuroscreen.CodeUnauthenticated, Type: "invalid-token", Message: message, Err: err}
}

func unavailable(err error) error {
	return &neuroscreen.Error{Code: neuroscreen.CodeUnavailable, Type: "provider-unavailable",
		Message: "the identity provider does not answer, so that tokens can't be checked; try again later, or send a key", Err: fmt.Errorf("identity provider: %w", err)}
}

// noticed keeps the error of a key set, of which a verifier only passes on the
// words.
type noticed struct {
	oidc.KeySet
	err error
}

func (k *noticed) VerifySignature(ctx context.Context, jwt string) (payload []byte, err error) {
	payload, k.err = k.KeySet.VerifySignature(ctx, jwt)
	return payload, k.err
}

// awayError tells that an issuer gave no answer that can be used.
type awayError struct{ err error }

func (e *awayError) Error() string { return e.err.Error() }
func (e *awayError) Unwrap() error { return e.err }

// askAgain is how long an answer of the issuer, or the lack of one, is taken
// for the present one.
const askAgain = 10 * time.Second

// sparing reads a document of the issuer at most every askAgain: nobody can
// make us flood it with tokens of made-up keys, and while it is away calls are
// told so at once instead of each waiting for it.
type sparing struct {
	next http.RoundTripper
	now  func() time.Time

	mu      sync.Mutex
	answers map[string]answer // by address: of its configuration and its keys
}

type answer struct {
	at     time.Time
	status int
	header http.Header
	body   []byte
	err    error
}

func (s *sparing) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Method != http.MethodGet {
		return s.next.RoundTrip(r)
	}
	address := r.URL.String()
	s.mu.Lock()
	a, ok := s.answers[address]
	s.mu.Unlock()
	if !ok || s.now().Sub(a.at) >= askAgain {
		a = s.ask(r)
		s.mu.Lock()
		s.answers[address] = a
		s.mu.Unlock()
	}
	if a.err != nil {
		return nil, &awayError{a.err}
	}
	return &http.Response{Status: http.StatusText(a.status), StatusCode: a.status, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Request: r,
		Header: a.header.Clone(), Body: io.NopCloser(bytes.NewReader(a.body)), ContentLength: int64(len(a.body))}, nil
}

func (s *sparing) ask(r *http.Request) answer {
	resp, err := s.next.RoundTrip(r)
	if err != nil {
		return answer{at: s.now(), err: err}
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	switch {
	case err != nil:
	case resp.StatusCode >= 400:
		err = fmt.Errorf("%s: %s", r.URL, resp.Status)
	case resp.StatusCode == http.StatusOK && !json.Valid(body):
		err = fmt.Errorf("%s: the answer is no JSON", r.URL)
	}
	return answer{s.now(), resp.StatusCode, resp.Header, body, err}
}
