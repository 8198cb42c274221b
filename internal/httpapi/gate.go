package httpapi

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"mime"
	"net/http"
	"net/url"
	"os"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers"
	"github.com/google/uuid"

	"neuroscreen"
	"neuroscreen/internal/store"
)

// exchange is one request on its way through the server.
type exchange struct {
	id        string
	operation string // operationId, "" for what the contract does not know
	route     string // path pattern, safe to log
	key       *store.KeyRecord
	session   string // token of the session that the key came by, "" for a key in a header
	req       *http.Request
	body      *requestBody
	answered  bool // the header of the answer is written
}

type exchangeKey struct{}

func exchangeFrom(ctx context.Context) *exchange {
	x, _ := ctx.Value(exchangeKey{}).(*exchange)
	return x
}

func requestID(ctx context.Context) string {
	if x := exchangeFrom(ctx); x != nil {
		return x.id
	}
	return ""
}

// caller is the key behind a request. It panics outside of an authenticated
// operation, which the gate never lets happen.
func caller(ctx context.Context) *store.KeyRecord { return exchangeFrom(ctx).key }

func actor(ctx context.Context) store.Actor { return store.Actor(caller(ctx).ID.String()) }

func siteID(ctx context.Context) uuid.UUID { return caller(ctx).SiteID }

// observe gives the request its id, deadlines, security headers, log line and
// metrics, and turns a panic into a problem. The log names the route's
// pattern, never the address: subject ids may be in it.
func (s *Server) observe(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		start := time.Now()
		id, err := uuid.NewV7()
		if err != nil {
			id = uuid.New()
		}
		x := &exchange{id: id.String()}
		x.body = newRequestBody(w, r, s.cfg.Limits.BodyIdle)
		ctx := context.WithValue(r.Context(), exchangeKey{}, x)
		r = r.WithContext(ctx)
		r.Body = x.body
		x.req = r
		rec := &recorder{ResponseWriter: w, x: x, idle: s.cfg.Limits.WriteIdle}
		// The deadline of the request before on this connection has outlived it.
		http.NewResponseController(w).SetWriteDeadline(time.Time{})

		h := w.Header()
		h.Set("X-Request-Id", x.id)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Content-Security-Policy", contentPolicy("")) // pages say what they need themselves

		s.metrics.inFlight.Inc()
		defer func() {
			s.metrics.inFlight.Dec()
			panicked := recover()
			if panicked != nil && panicked != http.ErrAbortHandler {
				s.cfg.Log.LogAttrs(ctx, slog.LevelError, "panic", slog.String("request_id", x.id),
					slog.String("panic", fmt.Sprint(panicked)), slog.String("stack", string(debug.Stack())))
				s.writeProblem(rec, r, fmt.Errorf("panic"))
			}
			op := x.operation
			if op == "" {
				op = "none"
			}
			took := time.Since(start)
			s.metrics.requests.WithLabelValues(op, strconv.Itoa(rec.status)).Inc()
			s.metrics.duration.WithLabelValues(op).Observe(took.Seconds())
			attrs := []slog.Attr{
				slog.String("request_id", x.id), slog.String("method", r.Method), slog.String("route", x.route),
				slog.Int("status", rec.status), slog.Int64("bytes_in", x.body.n), slog.Int64("bytes_out", rec.n),
				slog.Float64("ms", float64(took.Microseconds())/1000),
			}
			if x.key != nil {
				attrs = append(attrs, slog.String("key", x.key.Prefix), slog.String("site", x.key.SiteID.String()))
			}
			s.cfg.Log.LogAttrs(ctx, slog.LevelInfo, "request", attrs...)
			if panicked != nil && (panicked == http.ErrAbortHandler || rec.cut()) {
				panic(http.ErrAbortHandler) // the client must not take half an answer for a whole one
			}
		}()
		next.ServeHTTP(rec, r)
	})
}

// gate finds the operation, the key, and whether the one may call the other,
// and holds the request against the contract. What is not in the contract or
// not in the table of operations does not pass.
func (s *Server) gate(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		x := exchangeFrom(r.Context())
		r, route, pathParams, err := s.find(r)
		if errors.Is(err, routers.ErrMethodNotAllowed) {
			w.Header().Set("Allow", s.allow(r))
			s.writeProblem(w, r, neuroscreen.Errorf(codeMethod, "method-not-allowed", "%s is not possible here", r.Method))
			return
		}
		if err != nil {
			s.writeProblem(w, r, errNotFound())
			return
		}
		x.req, x.operation, x.route = r, route.Operation.OperationID, route.Path
		if err := s.admit(r, x, route, pathParams); err != nil {
			s.writeProblem(w, r, err)
			return
		}
		if x.key != nil && x.key.Role == researcher {
			r = r.WithContext(store.ForResearch(r.Context()))
			x.req = r
		}
		if operations[x.operation].upload {
			// Each takes some memory and a connection for as long as its client
			// likes.
			select {
			case s.streams <- struct{}{}:
				defer func() { <-s.streams }()
			default:
				s.writeProblem(w, r, neuroscreen.Errorf(neuroscreen.CodeBusy, "too-many-uploads", "%d uploads are under way; send it again later", cap(s.streams)))
				return
			}
		}
		next.ServeHTTP(w, r)
	})
}

// find returns the operation that a request asks for. HEAD of what is public is
// GET, whose text net/http leaves out; of a patient's data nothing would be read,
// but the trail would say so.
func (s *Server) find(r *http.Request) (*http.Request, *routers.Route, map[string]string, error) {
	route, params, err := s.router.FindRoute(r)
	if r.Method != http.MethodHead || !errors.Is(err, routers.ErrMethodNotAllowed) {
		return r, route, params, err
	}
	get := as(http.MethodGet, r)
	if route, params, getErr := s.router.FindRoute(get); getErr == nil && operations[route.Operation.OperationID].public {
		return get, route, params, nil
	}
	return r, nil, nil, err
}

// allow lists the methods that the request's address has.
func (s *Server) allow(r *http.Request) string {
	var list []string
	for _, method := range []string{http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete} {
		if _, _, _, err := s.find(as(method, r)); err == nil {
			list = append(list, method)
		}
	}
	return strings.Join(list, ", ")
}

// as is the request with another method.
func as(method string, r *http.Request) *http.Request {
	c := *r
	c.Method = method
	return &c
}

func (s *Server) admit(r *http.Request, x *exchange, route *routers.Route, pathParams map[string]string) error {
	a, ok := operations[x.operation]
	if !ok {
		return fmt.Errorf("operation %q has no row in the access table", x.operation)
	}
	if !a.public {
		key, err := s.authenticate(r, x, !a.idle)
		if err != nil {
			return err
		}
		x.key = &key
		if !a.allows(key.Role) {
			return neuroscreen.Errorf(neuroscreen.CodeForbidden, "role-not-allowed", "a key with the role %s may not do this", key.Role)
		}
	}
	if err := s.checkParameters(r, route, pathParams); err != nil {
		return err
	}
	if a.stream {
		return nil // checks its body on the way
	}
	return s.checkBody(r, route.Operation)
}

// authenticate returns the key of the request, or the one behind its token or
// its session.
// Both headers at once are refused when they differ, because one of them would
// be ignored; a session is asked only when there is no key.
func (s *Server) authenticate(r *http.Request, x *exchange, used bool) (store.KeyRecord, error) {
	secret, bearer := r.Header.Get("X-API-Key"), false
	if auth := r.Header.Get("Authorization"); auth != "" {
		scheme, token, _ := strings.Cut(auth, " ")
		token = strings.TrimSpace(token)
		if !strings.EqualFold(scheme, "Bearer") || secret != "" && secret != token {
			return store.KeyRecord{}, invalidKey(nil)
		}
		secret, bearer = token, true
	}
	if c, err := r.Cookie(sessionCookie); err == nil && secret == "" && r.Header.Get("Authorization") == "" {
		x.session = c.Value
		return s.sessionKey(r, c.Value, used)
	}
	if secret == "" {
		return store.KeyRecord{}, neuroscreen.Errorf(neuroscreen.CodeUnauthenticated, "missing-key",
			"a key is needed: Authorization: Bearer KEY, or X-API-Key: KEY; or a token of the identity provider: Authorization: Bearer TOKEN")
	}
	if bearer && isToken(secret) {
		return s.tokenKey(r.Context(), secret)
	}
	key, err := s.cfg.Store.Authenticate(r.Context(), secret)
	if e, ok := errors.AsType[*neuroscreen.Error](err); ok && e.Code == neuroscreen.CodeUnauthenticated {
		return key, invalidKey(err)
	}
	return key, err
}

func invalidKey(err error) error {
	return &neuroscreen.Error{Code: neuroscreen.CodeUnauthenticated, Type: "invalid-key", Message: "the key is unknown or was revoked", Err: err}
}

// checkParameters holds path, query and headers against the contract.
func (s *Server) checkParameters(r *http.Request, route *routers.Route, pathParams map[string]string) error {
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return neuroscreen.Errorf(neuroscreen.CodeInvalid, "invalid-query", "the query cannot be read")
	}
	known := func(name string) *openapi3.Parameter {
		for _, params := range []openapi3.Parameters{route.Operation.Parameters, route.PathItem.Parameters} {
			if p := params.GetByInAndName(openapi3.ParameterInQuery, name); p != nil {
				return p
			}
		}
		return nil
	}
	for name, values := range query {
		p := known(name)
		if p == nil && operations[route.Operation.OperationID].extra {
			continue
		}
		if p == nil {
			return neuroscreen.FieldErrorf(neuroscreen.CodeInvalid, "unknown-parameter", clip(name), "this call has no such parameter")
		}
		if len(values) > 1 && !p.Schema.Value.Type.Is("array") {
			return neuroscreen.FieldErrorf(neuroscreen.CodeInvalid, "invalid-value", name, "given more than once")
		}
		for _, v := range values {
			if err := checkText(name, v); err != nil {
				return err
			}
		}
	}
	// The validator closes the body even when it is told to leave it alone, and
	// closing reads it.
	bare := new(http.Request)
	*bare = *r
	bare.Body, bare.ContentLength = http.NoBody, 0
	err = openapi3filter.ValidateRequest(r.Context(), &openapi3filter.RequestValidationInput{
		Request: bare, PathParams: pathParams, QueryParams: query, Route: route,
		Options: &openapi3filter.Options{
			ExcludeRequestBody: true, SkipSettingDefaults: true,
			SchemaValidationOptions: []openapi3.SchemaValidationOption{openapi3.WithStringFormatValidator("uuid", uuidFormat)},
			// The key was checked before; this fails for an operation that needs
			// one by the contract and came here without.
			AuthenticationFunc: func(ctx context.Context, _ *openapi3filter.AuthenticationInput) error {
				if exchangeFrom(ctx).key == nil {
					return errors.New("not authenticated")
				}
				return nil
			},
		},
	})
	return contractError(err)
}

// uuidFormat is checked here and not in the generated code, so that an id in a
// path that can't exist is not found, like one that doesn't.
var uuidFormat = openapi3.NewCallbackValidator(func(s string) error {
	if uuid.Validate(s) != nil || len(s) != 36 {
		return errors.New("not an id")
	}
	return nil
})

// checkBody reads a small JSON body, checks it and puts it back for the
// handler. A body where the contract has none is left unread.
func (s *Server) checkBody(r *http.Request, op *openapi3.Operation) error {
	if op.RequestBody == nil {
		return nil
	}
	if !isJSON(r) {
		return neuroscreen.FieldErrorf(neuroscreen.CodeUnsupported, "unsupported-media-type", "Content-Type", "send application/json")
	}
	limit := s.cfg.Limits.MaxJSON
	switch op.OperationID {
	case "finishUpload", "createRefusal":
		limit = maxMetadata
	case "createDecoding":
		limit = maxDecoding
	}
	data, err := io.ReadAll(http.MaxBytesReader(nil, r.Body, limit))
	if err != nil {
		return bodyError(err, limit)
	}
	if len(data) == 0 {
		return neuroscreen.Errorf(neuroscreen.CodeInvalid, "missing-body", "a JSON body is needed")
	}
	if err := validateJSON(data, op.RequestBody.Value.Content["application/json"].Schema.Value); err != nil {
		return err
	}
	r.Body = io.NopCloser(bytes.NewReader(data))
	return nil
}

func isJSON(r *http.Request) bool {
	t, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	return err == nil && t == "application/json"
}

// validateJSON checks one JSON document against a schema of the contract.
func validateJSON(data []byte, schema *openapi3.Schema) error {
	if !utf8.Valid(data) {
		return neuroscreen.Errorf(neuroscreen.CodeInvalid, "invalid-json", "the JSON is not UTF-8")
	}
	var v any
	if err := json.Unmarshal(data, &v); err != nil {
		e := neuroscreen.Errorf(neuroscreen.CodeInvalid, "invalid-json", "the JSON cannot be read")
		if se, ok := errors.AsType[*json.SyntaxError](err); ok {
			e.Message = fmt.Sprintf("the JSON cannot be read at byte %d", se.Offset)
		}
		return e
	}
	if err := checkTexts("", v); err != nil {
		return err
	}
	return contractError(schema.VisitJSON(v, openapi3.VisitAsRequest()))
}

// contractError names the field or parameter at fault. Values are not
// repeated: they may be a patient's.
func contractError(err error) error {
	if err == nil {
		return nil
	}
	e := &neuroscreen.Error{Code: neuroscreen.CodeInvalid, Type: "invalid-value", Message: "not as the contract says"}
	if re, ok := errors.AsType[*openapi3filter.RequestError](err); ok && re.Parameter != nil {
		if re.Parameter.In == openapi3.ParameterInPath {
			return errNotFound() // no thing has such an id
		}
		e.Field = re.Parameter.Name
		if errors.Is(err, openapi3filter.ErrInvalidEmptyValue) {
			e.Message = "the value is empty"
		}
		if _, ok := errors.AsType[*openapi3filter.ParseError](err); ok {
			e.Message = "not a value of the right kind"
		}
	} else if _, ok := errors.AsType[*openapi3filter.SecurityRequirementsError](err); ok {
		return fmt.Errorf("the access table lets in what the contract does not: %w", err)
	}
	se, ok := errors.AsType[*openapi3.SchemaError](err)
	if !ok {
		if e.Field == "" {
			return err
		}
		return e
	}
	if path := se.JSONPointer(); len(path) > 0 && e.Field == "" {
		e.Field = strings.Join(path, ".")
	}
	e.Message = se.Reason
	switch se.SchemaField {
	case "required":
		e.Type, e.Message = "missing-field", "this field is needed"
	case "properties", "additionalProperties":
		if _, name, ok := strings.Cut(se.Reason, `property "`); ok {
			e.Field = clip(strings.TrimSuffix(name, `" is unsupported`))
		}
		e.Type, e.Message = "unknown-field", "the contract has no such field"
	case "pattern":
		switch {
		case strings.HasSuffix(e.Field, "_date"):
			e.Type, e.Message = "invalid-date", "dates are written YYYY-MM-DD"
		case strings.HasPrefix(e.Field, "received_"):
			e.Type, e.Message = "invalid-date", notDayOrTime
		default:
			e.Message = "not written as this field must be: " + se.Schema.Pattern
		}
	case "minProperties":
		e.Type, e.Message = "missing-field", "the body names nothing to change"
	}
	return e
}

// checkTexts finds control characters in any text of a JSON value.
func checkTexts(field string, v any) error {
	switch v := v.(type) {
	case string:
		return checkText(field, v)
	case []any:
		for _, e := range v {
			if err := checkTexts(field, e); err != nil {
				return err
			}
		}
	case map[string]any:
		for k, e := range v {
			if err := checkTexts(k, e); err != nil {
				return err
			}
		}
	}
	return nil
}

// checkText refuses control characters: no field needs one, a database takes
// no NUL, and logs and pages are safer without them. A table of events is made
// of lines and tabs.
func checkText(field, v string) error {
	ok := utf8.ValidString(v) && !strings.ContainsFunc(v, func(r rune) bool {
		return (r < ' ' || r == 0x7f) && !(field == "events" && (r == '\t' || r == '\n' || r == '\r'))
	})
	if !ok {
		return neuroscreen.FieldErrorf(neuroscreen.CodeInvalid, "invalid-value", clip(field), "holds a control character or is not UTF-8")
	}
	return nil
}

// clip shortens a name that the client made up before it is repeated.
func clip(s string) string {
	s = strings.ToValidUTF8(s, "?")
	if len(s) > 60 {
		s = strings.ToValidUTF8(s[:60], "") + "..."
	}
	return s
}

// badParameter is what the generated code makes of a parameter.
func badParameter(err error) error {
	if e, ok := errors.AsType[*InvalidParamFormatError](err); ok {
		return &neuroscreen.Error{Code: neuroscreen.CodeInvalid, Type: "invalid-value", Field: e.ParamName, Message: "not a value of the right kind", Err: err}
	}
	if e, ok := errors.AsType[*TooManyValuesForParamError](err); ok {
		return &neuroscreen.Error{Code: neuroscreen.CodeInvalid, Type: "invalid-value", Field: e.ParamName, Message: "given more than once", Err: err}
	}
	return &neuroscreen.Error{Code: neuroscreen.CodeInvalid, Type: "invalid-value", Message: "a parameter cannot be read", Err: err}
}

// bodyError explains why a body could not be read to its end.
func bodyError(err error, limit int64) error {
	if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return neuroscreen.Errorf(neuroscreen.CodeTooLarge, "body-too-large", "the limit is %d bytes", limit)
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return &neuroscreen.Error{Code: codeTimeout, Type: "request-timeout", Message: "no bytes came for too long", Err: err}
	}
	if _, ok := errors.AsType[*neuroscreen.Error](err); ok {
		return err
	}
	return &neuroscreen.Error{Code: neuroscreen.CodeInvalid, Type: "incomplete-body", Message: "the body ended before it was complete; nothing was stored, send it again", Err: err}
}

// maxDrain is how much of a refused body is read before the answer.
const (
	maxDrain     = 64 << 20
	maxDrainTime = 10 * time.Second
)

// requestBody counts what is read, and gives up on a client that sends
// nothing for a while; one that is slow but steady may go on.
type requestBody struct {
	io.ReadCloser
	rc    *http.ResponseController
	idle  time.Duration
	waits bool // the client waits for "100 Continue" before it sends
	n     int64
	done  bool
}

func newRequestBody(w http.ResponseWriter, r *http.Request, idle time.Duration) *requestBody {
	b := &requestBody{ReadCloser: r.Body, rc: http.NewResponseController(w), idle: idle}
	b.waits = strings.EqualFold(r.Header.Get("Expect"), "100-continue")
	b.done = r.Body == nil || r.Body == http.NoBody
	return b
}

func (b *requestBody) Read(p []byte) (int, error) {
	if b.done {
		return 0, io.EOF
	}
	b.rc.SetReadDeadline(time.Now().Add(b.idle))
	n, err := b.ReadCloser.Read(p)
	b.n += int64(n)
	if err != nil {
		b.done = true
	}
	if err == io.EOF {
		// Left behind, the deadline would end the request's context; after an
		// error it keeps the server from waiting for the rest of the body.
		b.rc.SetReadDeadline(time.Time{})
	}
	return n, err
}

func (b *requestBody) drain() {
	if b.done || b.waits && b.n == 0 {
		return
	}
	until := time.Now().Add(maxDrainTime)
	buf := make([]byte, 64<<10)
	for left := maxDrain; left > 0 && time.Now().Before(until); {
		n, err := b.Read(buf)
		left -= n
		if err != nil {
			return
		}
	}
}

// recorder remembers what was answered, and gives each piece of it its own
// time: a client that is slow but steady gets all.
type recorder struct {
	http.ResponseWriter
	x      *exchange
	idle   time.Duration
	status int
	n      int64
}

// maxPiece of an answer is written within Limits.WriteIdle.
const maxPiece = 1 << 20

func (w *recorder) WriteHeader(status int) {
	if w.status == 0 && status >= 200 {
		if h := w.Header(); w.x.key != nil && h.Get("Cache-Control") == "" {
			h.Set("Cache-Control", "no-store") // patient data and secrets
		}
		w.status = status
		w.x.answered = true
	}
	w.wait()
	w.ResponseWriter.WriteHeader(status)
}

func (w *recorder) Write(p []byte) (n int, err error) {
	if w.status == 0 {
		w.WriteHeader(http.StatusOK)
	}
	for piece := range slices.Chunk(p, maxPiece) {
		w.wait()
		m, err := w.ResponseWriter.Write(piece)
		n += m
		w.n += int64(m)
		if err != nil {
			return n, err
		}
	}
	return n, nil
}

// wait for the client from now on.
func (w *recorder) wait() {
	http.NewResponseController(w.ResponseWriter).SetWriteDeadline(time.Now().Add(w.idle))
}

// cut reports whether a body was begun under a good status.
func (w *recorder) cut() bool { return w.status < 400 && w.status != 0 }

// Unwrap serves http.ResponseController.
func (w *recorder) Unwrap() http.ResponseWriter { return w.ResponseWriter }
