package webhook

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// TestSign holds the signature against the example of the specification
// (its libraries' own test).
func TestSign(t *testing.T) {
	got, err := Sign("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "msg_p5jXN8AQM9LWM0D4loKWxJek", time.Unix(1614265330, 0), []byte(`{"test": 2432232314}`))
	if want := "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="; got != want || err != nil {
		t.Errorf("%s %v, want %s", got, err, want)
	}
	if _, err := Sign("whsec_?", "id", time.Now(), nil); err == nil {
		t.Error("a secret that is none was taken")
	}
	if a, b := NewSecret(), NewSecret(); a == b || !strings.HasPrefix(a, "whsec_") {
		t.Errorf("%s %s", a, b)
	}
}

var here = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}

func TestSend(t *testing.T) {
	secret := NewSecret()
	var answer int
	var got http.Header
	var body string
	var calls int
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		calls++
		b, _ := io.ReadAll(r.Body)
		got, body = r.Header, string(b)
		w.Header().Set("Location", "/elsewhere")
		w.WriteHeader(answer)
	}))
	defer server.Close()
	at := time.Unix(1750000000, 0)
	s := &Sender{Allowed: here, Now: func() time.Time { return at }}
	for status, bad := range map[int]bool{200: false, 204: false, 302: true, 404: true, 410: true, 500: true} {
		answer, calls = status, 0
		n, err := s.Send(t.Context(), server.URL+"/hook", secret, "id-1", []byte(`{"type":"x"}`))
		if n != status || (err != nil) != bad || errors.Is(err, ErrGone) != (status == 410) || calls != 1 {
			t.Errorf("answer %d: status %d, %v, %d calls", status, n, err, calls)
		}
	}
	want, err := Sign(secret, "id-1", at, []byte(body))
	if err != nil || got.Get("Webhook-Signature") != want || got.Get("Webhook-Id") != "id-1" || got.Get("Webhook-Timestamp") != "1750000000" {
		t.Errorf("%v, want the signature %s, %v", got, want, err)
	}
	t.Run("a receiver that hangs", func(t *testing.T) {
		release := make(chan struct{})
		slow := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-release }))
		defer slow.Close()
		defer close(release)
		s := &Sender{Allowed: here, Timeout: 20 * time.Millisecond}
		if _, err := s.Send(t.Context(), slow.URL, secret, "id", nil); !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
	})
}

// TestPrivateAddressesAreNotCalled, whatever the name says.
func TestPrivateAddressesAreNotCalled(t *testing.T) {
	called := false
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { called = true }))
	defer server.Close()
	port := server.URL[strings.LastIndexByte(server.URL, ':'):]
	for _, host := range []string{"127.0.0.1", "localhost", "[::ffff:127.0.0.1]", "0.0.0.0"} {
		_, err := (&Sender{}).Send(t.Context(), "http://"+host+port, NewSecret(), "id", nil)
		if err == nil || !strings.Contains(err.Error(), "no public address") || called {
			t.Errorf("%s: %v, called %v", host, err, called)
		}
	}
	for address, want := range map[string]bool{
		"8.8.8.8": true, "2606:4700::1111": true,
		"10.1.2.3": false, "172.16.0.1": false, "192.168.1.1": false, "169.254.169.254": false, "100.64.0.1": false,
		"::1": false, "fd00::1": false, "fe80::1": false, "224.0.0.1": false, "255.255.255.255": false, "64:ff9b::a01:203": false, "2002:a01:203::1": false,
	} {
		if got := public(netip.MustParseAddr(address)); got != want {
			t.Errorf("%s: public %v", address, got)
		}
	}
	control := (&Sender{Allowed: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}}).control
	for _, tt := range []struct {
		scheme, address string
		ok              bool
	}{{"http", "10.1.1.1:80", true}, {"https", "10.1.1.1:443", true}, {"http", "8.8.8.8:80", false}, {"https", "8.8.8.8:443", true}, {"https", "192.168.0.1:443", false}} {
		if err := control(tt.scheme)("tcp", tt.address, nil); (err == nil) != tt.ok {
			t.Errorf("%s to %s: %v", tt.scheme, tt.address, err)
		}
	}
}

func TestCheckURL(t *testing.T) {
	for address, ok := range map[string]bool{
		"https://pacs.example/hook?x=1": true, "http://10.0.0.7:8080/": true,
		"": false, "pacs.example": false, "ftp://x/": false, "https://": false, "https://u:p@x/": false, "https://x/#y": false, "file:///etc/passwd": false,
	} {
		if err := CheckURL(address); (err == nil) != ok {
			t.Errorf("%q: %v", address, err)
		}
	}
}
