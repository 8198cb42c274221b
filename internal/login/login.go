// Package login signs people in at an identity provider: OpenID Connect, code
// flow with PKCE.
package login

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"

	"neuroscreen"
	"neuroscreen/internal/httpapi"
	"neuroscreen/internal/store"
)

// Config of a provider. Audiences, Secret, Client and Now may be missing.
type Config struct {
	Issuer    string   // address, whose /.well-known/openid-configuration is asked
	ClientID  string   // of this service; ID tokens name it as their audience
	Audiences []string // more that the tokens of calls may be made for, as access tokens are
	Secret    string   // of a confidential client; none for a public one
	PublicURL string   // of this service, as browsers know it
	RoleClaim string   // claim of the token that holds the person's roles
	Client    *http.Client
	Now       func() time.Time
}

// Provider implements httpapi.Provider. It asks the issuer for its addresses
// and keys when they are first needed, so that the service starts without it.
type Provider struct {
	cfg Config
	mu  sync.Mutex
	at  *issuer // nil until it has answered
}

// issuer is what an issuer said of itself.
type issuer struct {
	provider *oidc.Provider
	keys     oidc.KeySet
	asked    time.Time
}

// keysFor is how long an issuer's keys are trusted. It is asked for them sooner
// when a token is signed with one that is not known; one that it took back is
// only noticed by asking.
const keysFor = time.Hour

// New returns a provider that has not been asked anything yet.
func New(cfg Config) *Provider {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	client := http.Client{Timeout: 15 * time.Second}
	if cfg.Client != nil {
		client = *cfg.Client
	}
	if client.Transport == nil {
		client.Transport = http.DefaultTransport
	}
	client.Transport = &sparing{next: client.Transport, now: cfg.Now, answers: map[string]answer{}}
	cfg.Client = &client
	return &Provider{cfg: cfg}
}

func (p *Provider) discover(ctx context.Context) (*issuer, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.at != nil && p.cfg.Now().Sub(p.at.asked) < keysFor {
		return p.at, nil
	}
	// Its keys are fetched again later, after this request has ended.
	ctx = oidc.ClientContext(context.WithoutCancel(ctx), p.cfg.Client)
	provider, err := oidc.NewProvider(ctx, p.cfg.Issuer)
	if err != nil {
		return nil, err
	}
	var at struct {
		Keys string `json:"jwks_uri"`
	}
	if err := provider.Claims(&at); err != nil {
		return nil, err
	}
	p.at = &issuer{provider, oidc.NewRemoteKeySet(ctx, at.Keys), p.cfg.Now()}
	return p.at, nil
}

func (p *Provider) oauth(at *issuer) *oauth2.Config {
	return &oauth2.Config{
		ClientID: p.cfg.ClientID, ClientSecret: p.cfg.Secret, Endpoint: at.provider.Endpoint(),
		RedirectURL: strings.TrimSuffix(p.cfg.PublicURL, "/") + "/session/provider/callback",
		Scopes:      []string{oidc.ScopeOpenID, "profile"},
	}
}

// URL is where the browser signs in.
func (p *Provider) URL(ctx context.Context, a httpapi.Attempt) (string, error) {
	at, err := p.discover(ctx)
	if err != nil {
		return "", err
	}
	return p.oauth(at).AuthCodeURL(a.State, oidc.Nonce(a.Nonce), oauth2.S256ChallengeOption(a.Verifier)), nil
}

// Person redeems the code and checks the ID token, and that it was made for
// this attempt.
func (p *Provider) Person(ctx context.Context, a httpapi.Attempt, code string) (store.Person, error) {
	none := store.Person{}
	at, err := p.discover(ctx)
	if err != nil {
		return none, err
	}
	token, err := p.oauth(at).Exchange(oidc.ClientContext(ctx, p.cfg.Client), code, oauth2.VerifierOption(a.Verifier))
	if err != nil {
		return none, fmt.Errorf("redeem the code: %w", err)
	}
	raw, ok := token.Extra("id_token").(string)
	if !ok {
		return none, errors.New("the answer has no ID token")
	}
	id, err := p.verify(ctx, raw, p.cfg.ClientID)
	if err != nil {
		return none, err
	}
	if id.Nonce == "" || id.Nonce != a.Nonce {
		return none, errors.New("the ID token was made for another attempt")
	}
	return p.person(id)
}

// Holder checks the token that a call came with: an ID token of ours, or an
// access token that was made for one of the audiences.
func (p *Provider) Holder(ctx context.Context, token string) (store.Person, error) {
	id, err := p.verify(ctx, token, append([]string{p.cfg.ClientID}, p.cfg.Audiences...)...)
	if err != nil {
		return store.Person{}, err
	}
	return p.person(id)
}

// person takes from a token who it is and what the person may do.
func (p *Provider) person(id *oidc.IDToken) (store.Person, error) {
	claims := map[string]any{}
	if err := id.Claims(&claims); err != nil {
		return store.Person{}, fmt.Errorf("claims: %w", err)
	}
	role, ok := roleOf(claims[p.cfg.RoleClaim])
	if !ok {
		return store.Person{}, neuroscreen.Errorf(neuroscreen.CodeForbidden, "no-role", "your account has no role here; an administrator gives it one of uploader, clinician, researcher or admin")
	}
	return store.Person{Issuer: id.Issuer, Subject: id.Subject, Name: nameOf(claims), Role: role}, nil
}

// nameOf is what colleagues call the person.
func nameOf(claims map[string]any) string {
	for _, claim := range []string{"name", "preferred_username"} {
		if name, ok := claims[claim].(string); ok && strings.TrimSpace(name) != "" {
			return strings.TrimSpace(name)
		}
	}
	return "Unnamed person"
}

// roleOf finds the role among a claim's values, which name it alone or behind
// "neuroscreen-" or "neuroscreen:". Of several the first of admin, clinician,
// researcher and uploader counts.
func roleOf(claim any) (neuroscreen.Role, bool) {
	var values []string
	switch v := claim.(type) {
	case string:
		values = strings.Fields(v)
	case []any:
		for _, e := range v {
			if s, ok := e.(string); ok {
				values = append(values, s)
			}
		}
	}
	for n, v := range values {
		values[n] = strings.TrimPrefix(strings.TrimPrefix(v, "neuroscreen-"), "neuroscreen:")
	}
	for _, role := range []neuroscreen.Role{neuroscreen.Admin, neuroscreen.Clinician, neuroscreen.Researcher, neuroscreen.Uploader} {
		if slices.Contains(values, string(role)) {
			return role, true
		}
	}
	return "", false
}
