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

// Config of a provider. All but Secret are needed.
type Config struct {
	Issuer    string // address, whose /.well-known/openid-configuration is asked
	ClientID  string
	Secret    string // of a confidential client; none for a public one
	PublicURL string // of this service, as browsers know it
	RoleClaim string // claim of the ID token that holds the person's roles
	Client    *http.Client
}

// Provider implements httpapi.Provider. It asks the issuer for its keys and
// addresses at the first sign-in, so that the service starts without it.
type Provider struct {
	cfg Config
	mu  sync.Mutex
	at  *oidc.Provider
}

// New returns a provider that has not been asked anything yet.
func New(cfg Config) *Provider {
	if cfg.Client == nil {
		cfg.Client = &http.Client{Timeout: 15 * time.Second}
	}
	return &Provider{cfg: cfg}
}

func (p *Provider) discover(ctx context.Context) (*oidc.Provider, *oauth2.Config, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.at == nil {
		// Its keys are fetched again later, after this request has ended.
		at, err := oidc.NewProvider(oidc.ClientContext(context.WithoutCancel(ctx), p.cfg.Client), p.cfg.Issuer)
		if err != nil {
			return nil, nil, err
		}
		p.at = at
	}
	return p.at, &oauth2.Config{
		ClientID: p.cfg.ClientID, ClientSecret: p.cfg.Secret, Endpoint: p.at.Endpoint(),
		RedirectURL: strings.TrimSuffix(p.cfg.PublicURL, "/") + "/session/provider/callback",
		Scopes:      []string{oidc.ScopeOpenID, "profile"},
	}, nil
}

// URL is where the browser signs in.
func (p *Provider) URL(ctx context.Context, a httpapi.Attempt) (string, error) {
	_, o, err := p.discover(ctx)
	if err != nil {
		return "", err
	}
	return o.AuthCodeURL(a.State, oidc.Nonce(a.Nonce), oauth2.S256ChallengeOption(a.Verifier)), nil
}

// Person redeems the code and checks the ID token: signature, issuer,
// audience, times, and that it was made for this attempt.
func (p *Provider) Person(ctx context.Context, a httpapi.Attempt, code string) (store.Person, error) {
	none := store.Person{}
	at, o, err := p.discover(ctx)
	if err != nil {
		return none, err
	}
	token, err := o.Exchange(oidc.ClientContext(ctx, p.cfg.Client), code, oauth2.VerifierOption(a.Verifier))
	if err != nil {
		return none, fmt.Errorf("redeem the code: %w", err)
	}
	raw, ok := token.Extra("id_token").(string)
	if !ok {
		return none, errors.New("the answer has no ID token")
	}
	id, err := at.VerifierContext(oidc.ClientContext(ctx, p.cfg.Client), &oidc.Config{ClientID: p.cfg.ClientID}).Verify(ctx, raw)
	if err != nil {
		return none, err
	}
	if id.Nonce == "" || id.Nonce != a.Nonce {
		return none, errors.New("the ID token was made for another attempt")
	}
	claims := map[string]any{}
	if err := id.Claims(&claims); err != nil {
		return none, fmt.Errorf("claims: %w", err)
	}
	role, ok := roleOf(claims[p.cfg.RoleClaim])
	if !ok {
		return none, neuroscreen.Errorf(neuroscreen.CodeForbidden, "no-role", "your account has no role here; an administrator gives it one of uploader, clinician, researcher or admin")
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
