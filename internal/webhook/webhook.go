// Package webhook sends signed messages to addresses that a site's
// administrator named. Signatures are those of Standard Webhooks
// (standardwebhooks.com, version 1). Because the address is somebody's input
// and the sender stands inside the clinic's network, nothing private is
// called unless the deployment allows its network.
package webhook

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const secretPrefix = "whsec_"

// NewSecret is a signing key of 32 random bytes as receivers' libraries take it.
func NewSecret() string {
	var b [32]byte
	rand.Read(b[:])
	return secretPrefix + base64.StdEncoding.EncodeToString(b[:])
}

// Sign returns the header webhook-signature of a message.
func Sign(secret, id string, at time.Time, body []byte) (string, error) {
	key, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(secret, secretPrefix))
	if err != nil {
		return "", errors.New("webhook: the secret is not base64")
	}
	m := hmac.New(sha256.New, key)
	fmt.Fprintf(m, "%s.%d.", id, at.Unix())
	m.Write(body)
	return "v1," + base64.StdEncoding.EncodeToString(m.Sum(nil)), nil
}

// CheckURL refuses what could not be sent to, before it is stored.
func CheckURL(address string) error {
	u, err := url.Parse(address)
	switch {
	case err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http":
		return errors.New("write the whole address, as https://host/path")
	case u.User != nil:
		return errors.New("no user or password in the address; messages are signed")
	case u.Fragment != "":
		return errors.New("no fragment in the address")
	}
	return nil
}

// Sender sends messages. The zero value sends to public addresses only.
type Sender struct {
	// Allowed networks may be private, and may be spoken to without TLS.
	Allowed []netip.Prefix
	Timeout time.Duration // 15 s when 0
	Now     func() time.Time
}

// ErrGone: the receiver answered 410 and wants no more.
var ErrGone = errors.New("the receiver answered 410 Gone")

// Send posts a message and returns the answer's status, 0 when there was
// none. An answer other than 2xx is an error; redirects are not followed.
func (s *Sender) Send(ctx context.Context, address, secret, id string, body []byte) (status int, err error) {
	timeout := s.Timeout
	if timeout == 0 {
		timeout = 15 * time.Second
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	now := time.Now()
	if s.Now != nil {
		now = s.Now()
	}
	signature, err := Sign(secret, id, now, body)
	if err != nil {
		return 0, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, address, bytes.NewReader(body))
	if err != nil {
		return 0, err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("User-Agent", "NeuroScreen")
	req.Header.Set("Webhook-Id", id)
	req.Header.Set("Webhook-Timestamp", strconv.FormatInt(now.Unix(), 10))
	req.Header.Set("Webhook-Signature", signature)

	dialer := &net.Dialer{Control: s.control(req.URL.Scheme)}
	// No proxy: it would look addresses up for us.
	transport := &http.Transport{DialContext: dialer.DialContext, DisableKeepAlives: true, MaxResponseHeaderBytes: 64 << 10}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	res, err := client.Do(req)
	if err != nil {
		return 0, err
	}
	defer res.Body.Close()
	io.Copy(io.Discard, io.LimitReader(res.Body, 64<<10))
	switch {
	case res.StatusCode == http.StatusGone:
		return res.StatusCode, ErrGone
	case res.StatusCode < 200 || res.StatusCode > 299:
		return res.StatusCode, fmt.Errorf("the receiver answered %s", res.Status)
	}
	return res.StatusCode, nil
}

// control sees the address after its name was looked up, so that a name
// cannot lead elsewhere the second time.
func (s *Sender) control(scheme string) func(network, address string, c syscall.RawConn) error {
	return func(_, address string, _ syscall.RawConn) error {
		ap, err := netip.ParseAddrPort(address)
		if err != nil {
			return err
		}
		ip := ap.Addr().Unmap().WithZone("")
		for _, p := range s.Allowed {
			if p.Contains(ip) {
				return nil
			}
		}
		if !public(ip) {
			return fmt.Errorf("%s is no public address; the deployment allows private networks by --webhook-networks", ip)
		}
		if scheme != "https" {
			return fmt.Errorf("%s: without TLS only networks are called that --webhook-networks names", ip)
		}
		return nil
	}
}

// notPublic are the special ranges of RFC 6890 and its successors that
// netip's own predicates leave out.
var notPublic = []netip.Prefix{
	netip.MustParsePrefix("0.0.0.0/8"),       // this network
	netip.MustParsePrefix("100.64.0.0/10"),   // shared by carriers
	netip.MustParsePrefix("192.0.0.0/24"),    // protocol assignments
	netip.MustParsePrefix("192.0.2.0/24"),    // documentation
	netip.MustParsePrefix("192.88.99.0/24"),  // 6to4 relays
	netip.MustParsePrefix("198.18.0.0/15"),   // benchmarks
	netip.MustParsePrefix("198.51.100.0/24"), // documentation
	netip.MustParsePrefix("203.0.113.0/24"),  // documentation
	netip.MustParsePrefix("240.0.0.0/4"),     // reserved, and broadcast
	netip.MustParsePrefix("64:ff9b::/96"),    // IPv4 by translation
	netip.MustParsePrefix("64:ff9b:1::/48"),
	netip.MustParsePrefix("100::/64"),      // discard
	netip.MustParsePrefix("2001::/23"),     // protocol assignments, Teredo
	netip.MustParsePrefix("2001:db8::/32"), // documentation
	netip.MustParsePrefix("2002::/16"),     // 6to4
	netip.MustParsePrefix("fec0::/10"),     // once site-local
}

func public(ip netip.Addr) bool {
	if !ip.IsGlobalUnicast() || ip.IsPrivate() {
		return false
	}
	for _, p := range notPublic {
		if p.Contains(ip) {
			return false
		}
	}
	return true
}
