package service

import (
	"encoding/json"
	"net/http"
	"testing"
	"time"

	"neuroscreen/internal/login/logintest"
)

// TestTokensOfTheProvider: the service takes what its identity provider signed
// for it, asks it for its keys once, and does not need it for its own keys.
func TestTokensOfTheProvider(t *testing.T) {
	t.Parallel()
	issuer := logintest.New(t)
	var r *running
	begin := func() (data string) {
		cfg := settings(t)
		cfg.PublicURL, cfg.OIDCIssuer, cfg.OIDCClient, cfg.OIDCAudiences, cfg.OIDCRoleClaim = "https://ns.example", issuer.URL, "neuroscreen", []string{"imaging"}, "roles"
		r = start(t, cfg, fake)
		return cfg.Data
	}
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	ask := func(token string, status int, problem string) {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), "GET", r.url+"/v1/cases", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+token)
		resp, err := (&http.Client{Transport: transport}).Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		var p struct{ Type, Detail string }
		if err := json.NewDecoder(resp.Body).Decode(&p); err != nil || resp.StatusCode != status || problem != "" && (p.Type != "/problems/"+problem || p.Detail == "") {
			t.Errorf("%d %+v %v, want %d %s", resp.StatusCode, p, err, status, problem)
		}
		if status == http.StatusServiceUnavailable && resp.Header.Get("Retry-After") == "" {
			t.Error("no Retry-After")
		}
	}

	data := begin()
	issuer.Away.Store(true)
	ask(issuer.Token(t, nil), 503, "provider-unavailable")
	if _, _, err := api(t, r, data).Submit(t.Context(), upload(t, 1)); err != nil {
		t.Errorf("with a key: %v", err)
	}
	issuer.Away.Store(false)

	// Another service, which has not been told that the provider is away.
	begin()
	for range 3 {
		ask(issuer.Token(t, nil), 200, "")
	}
	ask(issuer.Token(t, func(c map[string]any) { c["aud"] = "imaging" }), 200, "")
	ask(issuer.Token(t, func(c map[string]any) { c["aud"] = "mail" }), 401, "invalid-token")
	ask(issuer.Token(t, func(c map[string]any) { c["exp"] = time.Now().Add(-time.Minute).Unix() }), 401, "invalid-token")
	ask(issuer.Token(t, func(c map[string]any) { c["roles"] = "mail" }), 403, "no-role")
	ask(issuer.Token(t, func(c map[string]any) { c["roles"] = "uploader" }), 403, "role-not-allowed")
	if n := issuer.Asked("/keys"); n != 1 {
		t.Errorf("asked %d times for the keys", n)
	}
}
