package store_test

import (
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	"neuroscreen"
	"neuroscreen/internal/deid"
	"neuroscreen/internal/store"
)

func TestKeys(t *testing.T) {
	t.Parallel()
	b := setup(t)
	secret, key, err := b.CreateKey(t.Context(), b.site, actor, neuroscreen.Clinician, "reading room")
	if err != nil {
		t.Fatal(err)
	}

	t.Run("authenticates with site and role", func(t *testing.T) {
		got, err := b.Authenticate(t.Context(), secret)
		if err != nil || got.ID != key.ID || got.SiteID != b.site || got.Role != neuroscreen.Clinician || got.Label != "reading room" {
			t.Errorf("%+v %v", got, err)
		}
	})
	t.Run("its use is noted to the minute", func(t *testing.T) {
		b.clock.Advance(90 * time.Second)
		if _, err := b.Authenticate(t.Context(), secret); err != nil {
			t.Fatal(err)
		}
		keys, err := b.ListKeys(t.Context(), b.site)
		if err != nil || len(keys) != 1 || !keys[0].LastUsed.Equal(b.clock.Now().Truncate(time.Minute)) {
			t.Errorf("%+v %v", keys, err)
		}
	})
	t.Run("the secret is not stored", func(t *testing.T) {
		dump := b.scalar(t, "SELECT string_agg(k::text, ' ') FROM keys k")
		if last := secret[strings.LastIndex(secret, "_")+1:]; strings.Contains(dump, last) || len(last) < 52 {
			t.Errorf("%q in %s", last, dump)
		}
	})
	for name, wrong := range map[string]string{
		"empty":             "",
		"unknown":           "nsk_aaaaaaaa_bbbb",
		"another secret":    secret[:len(secret)-1] + "!",
		"upper case":        strings.ToUpper(secret),
		"the prefix":        "nsk_" + key.Prefix,
		"trailing space":    secret + " ",
		"prefix of another": "nsk_" + key.Prefix + "_" + strings.Repeat("a", 52),
	} {
		t.Run("refuses "+name, func(t *testing.T) {
			_, err := b.Authenticate(t.Context(), wrong)
			wantCode(t, err, neuroscreen.CodeUnauthenticated, "invalid-key")
		})
	}
	t.Run("refuses an unknown role", func(t *testing.T) {
		_, _, err := b.CreateKey(t.Context(), b.site, actor, "root", "")
		wantCode(t, err, neuroscreen.CodeInvalid, "invalid-value")
	})
	t.Run("revoked, it counts no more", func(t *testing.T) {
		for range 2 { // twice is no error
			if k, err := b.RevokeKey(t.Context(), b.site, actor, key.ID); err != nil || k.Revoked == nil {
				t.Fatal(k, err)
			}
		}
		_, err := b.Authenticate(t.Context(), secret)
		wantCode(t, err, neuroscreen.CodeUnauthenticated, "invalid-key")
	})
}

func TestLastAdminKeyStays(t *testing.T) {
	t.Parallel()
	b := setup(t)
	var keys []store.KeyRecord
	for range 4 {
		_, k, err := b.CreateKey(t.Context(), b.site, actor, neuroscreen.Admin, "")
		if err != nil {
			t.Fatal(err)
		}
		keys = append(keys, k)
	}
	var wg sync.WaitGroup
	for _, k := range keys {
		wg.Go(func() { b.RevokeKey(context.Background(), b.site, actor, k.ID) }) // one of them must fail
	}
	wg.Wait()
	left, err := b.ListKeys(t.Context(), b.site)
	if err != nil {
		t.Fatal(err)
	}
	var alive []store.KeyRecord
	for _, k := range left {
		if k.Revoked == nil {
			alive = append(alive, k)
		}
	}
	if len(alive) != 1 {
		t.Fatalf("%d admin keys left", len(alive))
	}
	_, err = b.RevokeKey(t.Context(), b.site, actor, alive[0].ID)
	wantCode(t, err, neuroscreen.CodeConflict, "last-admin-key")
}

// TestPeople: the identity provider's people are keys whose secret nobody has.
func TestPeople(t *testing.T) {
	t.Parallel()
	b := setup(t)
	person := store.Person{Issuer: "https://id.example", Subject: "7", Name: "Dr. A", Role: neuroscreen.Clinician}
	first, err := b.EnsurePerson(t.Context(), b.site, person)
	if err != nil {
		t.Fatal(err)
	}
	person.Role = neuroscreen.Admin
	promoted, err := b.EnsurePerson(t.Context(), b.site, person)
	if err != nil || promoted.ID != first.ID || promoted.Role != neuroscreen.Admin {
		t.Fatalf("%+v %v", promoted, err)
	}
	if _, err := b.EnsurePerson(t.Context(), b.site, person); err != nil {
		t.Fatal(err)
	}
	t.Run("a change of role is in the trail, once", func(t *testing.T) {
		object := "key:" + first.ID.String()
		trail, err := b.Audit(t.Context(), b.site, store.AuditFilter{Object: &object})
		if err != nil || len(trail) != 2 || trail[0].Action != "key.role" || trail[0].Details != "admin, was clinician" || trail[1].Action != "key.create" {
			t.Errorf("%+v %v", trail, err)
		}
	})
	t.Run("without a key there is no administrator", func(t *testing.T) {
		made, err := b.EnsureAdminKey(t.Context(), b.site, actor, "", false, func(func(string) (bool, error)) (string, error) { return store.NewSecret(), nil })
		if err != nil || !made {
			t.Errorf("%v %v", made, err)
		}
	})
	t.Run("the last key is the last, whoever may administer", func(t *testing.T) {
		keys, err := b.ListKeys(t.Context(), b.site)
		if err != nil {
			t.Fatal(err)
		}
		for _, k := range keys {
			if k.ID != first.ID {
				_, err = b.RevokeKey(t.Context(), b.site, actor, k.ID)
				wantCode(t, err, neuroscreen.CodeConflict, "last-admin-key")
			}
		}
		if _, err := b.RevokeKey(t.Context(), b.site, actor, first.ID); err != nil {
			t.Error(err)
		}
		_, err = b.EnsurePerson(t.Context(), b.site, person)
		wantCode(t, err, neuroscreen.CodeForbidden, "person-revoked")
	})
}

// TestTokenKey: a token's role is that of its calls, and changes nothing for
// whoever signed in.
func TestTokenKey(t *testing.T) {
	t.Parallel()
	b := setup(t)
	person := store.Person{Issuer: "https://id.example", Subject: "7", Name: "Dr. A", Role: neuroscreen.Admin}
	first, err := b.TokenKey(t.Context(), b.site, person)
	if err != nil || first.Role != neuroscreen.Admin || first.SiteID != b.site {
		t.Fatalf("%+v %v", first, err)
	}
	person.Role = neuroscreen.Clinician
	signedIn, err := b.EnsurePerson(t.Context(), b.site, person)
	if err != nil || signedIn.ID != first.ID {
		t.Fatalf("%+v %v", signedIn, err)
	}
	person.Role = neuroscreen.Admin
	if again, err := b.TokenKey(t.Context(), b.site, person); err != nil || again.ID != first.ID || again.Role != neuroscreen.Admin {
		t.Errorf("%+v %v", again, err)
	}
	keys, err := b.ListKeys(t.Context(), b.site)
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range keys {
		if k.ID == first.ID && (k.Role != neuroscreen.Clinician || k.LastUsed == nil) {
			t.Errorf("%+v", k)
		}
	}
	if _, err := b.RevokeKey(t.Context(), b.site, actor, first.ID); err != nil {
		t.Fatal(err)
	}
	_, err = b.TokenKey(t.Context(), b.site, person)
	wantCode(t, err, neuroscreen.CodeForbidden, "person-revoked")
}

func TestSites(t *testing.T) {
	t.Parallel()
	b := setup(t)
	t.Run("made once", func(t *testing.T) {
		site, created, err := b.EnsureSite(t.Context(), "here")
		if err != nil || created || site.ID != b.site {
			t.Errorf("%+v %v %v", site, created, err)
		}
		sites, err := b.Sites(t.Context())
		if err != nil || len(sites) != 2 || sites[0].Name != "elsewhere" {
			t.Errorf("%+v %v", sites, err)
		}
	})
	t.Run("names are plain", func(t *testing.T) {
		for _, name := range []string{"", "A", "a b", "-a", strings.Repeat("a", 64)} {
			_, _, err := b.EnsureSite(t.Context(), name)
			wantCode(t, err, neuroscreen.CodeInvalid, "invalid-value")
		}
	})
	t.Run("another secret is refused", func(t *testing.T) {
		keys, err := deid.New(strings.Repeat("00", 32))
		if err != nil {
			t.Fatal(err)
		}
		s := store.New(store.Config{Pool: b.pool, Keys: keys})
		_, _, err = s.EnsureSite(t.Context(), "here")
		wantCode(t, err, neuroscreen.CodeConflict, "wrong-secret")
	})
}
