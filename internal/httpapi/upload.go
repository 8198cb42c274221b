package httpapi

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"hash"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"strings"
	"time"

	"neuroscreen"
	"neuroscreen/internal/blob"
	"neuroscreen/internal/nifti"
	"neuroscreen/internal/store"
)

const (
	maxMetadata = 1 << 20 // a series of 10,000 SOP instance UIDs fits
	maxHeader   = 1 << 20 // an .hdr has 348 or 540 bytes; extensions may follow
	maxOverhead = 4 << 20 // of a multipart body: metadata, header, boundaries
)

// rawTypes are the media types of a body that is the file itself. The last two
// are what curl sends unless told otherwise, and nothing.
var rawTypes = map[string]bool{
	"application/octet-stream": true, "application/gzip": true, "application/x-gzip": true, "application/x-nifti": true,
	"application/nifti": true, "application/x-www-form-urlencoded": true, "": true,
}

// upload is one scan on its way in.
type upload struct {
	s        *Server
	ctx      context.Context
	metadata neuroscreen.Metadata
	header   []byte // of an .hdr/.img pair, as received
	scan     file
	copied   bytes.Buffer      // the scrubbed header of a pair
	waiting  io.ReadSeekCloser // an .img whose header has not come yet
	lenient  bool              // about what the metadata lack
	stored   []string          // keys of blobs that nothing refers to yet
}

// file is one part, as it was received and where its scrubbed copy is stored.
type file struct {
	sha256 []byte // of the received bytes
	size   int64
	key    string
}

// CreateScan streams the body into the blob store while its hash is taken and
// the image is scrubbed (only the copy without free text is ever stored), then
// makes row and job. Until that has happened
// nothing can be seen of the upload, and after an error nothing remains.
func (s *Server) CreateScan(ctx context.Context, req CreateScanRequestObject) (res CreateScanResponseObject, err error) {
	x := exchangeFrom(ctx)
	r := x.req
	if r.ContentLength > s.cfg.Limits.MaxUpload+maxOverhead {
		return nil, neuroscreen.Errorf(neuroscreen.CodeTooLarge, "body-too-large", "the limit is %d bytes", s.cfg.Limits.MaxUpload)
	}
	u := &upload{s: s, ctx: ctx, lenient: lenient(req.Params.Prefer)}
	defer func() {
		if u.waiting != nil {
			u.waiting.Close()
		}
		if err != nil {
			u.discard()
		}
	}()

	mediaType, params, err := mediaType(r)
	switch {
	case err != nil:
		return nil, err
	case mediaType == "multipart/form-data":
		if hasMetadata(req.Params) {
			return nil, neuroscreen.Errorf(neuroscreen.CodeInvalid, "metadata-twice", "metadata are in the query, but the body is multipart; put them into its part metadata")
		}
		err = u.readMultipart(r, params["boundary"], val(req.Params.ContentDigest))
	case rawTypes[mediaType]:
		if u.metadata, err = s.queryMetadata(req.Params); err == nil {
			err = u.readRaw(r, val(req.Params.ContentDigest))
		}
	default:
		err = neuroscreen.FieldErrorf(neuroscreen.CodeUnsupported, "unsupported-media-type", "Content-Type",
			"send multipart/form-data, or application/octet-stream with the metadata in the query")
	}
	if err != nil {
		return nil, err
	}
	scan, known, err := u.create(val(req.Params.IdempotencyKey))
	if err != nil {
		return nil, err
	}
	location := "/v1/scans/" + scan.ID.String()
	if known {
		return CreateScan200JSONResponse{Body: scan, Headers: CreateScan200ResponseHeaders{Location: location}}, nil
	}
	return CreateScan202JSONResponse{Body: scan, Headers: CreateScan202ResponseHeaders{Location: location}}, nil
}

// create makes row and job for what was stored; known says that the scan was
// here already.
func (u *upload) create(idempotencyKey string) (scan Scan, known bool, err error) {
	s, ctx := u.s, u.ctx
	s.metrics.uploadBytes.Add(float64(u.scan.size))
	n := u.row(idempotencyKey)
	if u.header != nil {
		info, err := u.put(&u.copied)
		if err != nil {
			return Scan{}, false, err
		}
		sum := sha256.Sum256(u.header)
		n.HeaderSHA256, n.HeaderSize, n.HeaderBlobKey = hex.EncodeToString(sum[:]), int64(len(u.header)), info.Key
	}
	created, err := s.cfg.Store.CreateScan(ctx, siteID(ctx), actor(ctx), n)
	if err != nil {
		return Scan{}, false, err
	}
	if created.Duplicate {
		scan, err = u.known(created.Scan)
		u.discard() // bytes that came under another header or compression, if any
	} else {
		scan, err = s.scan(ctx, created.Scan)
	}
	return scan, created.Duplicate, err
}

// row is the scan as it was sent, without its header.
func (u *upload) row(idempotencyKey string) store.NewScan {
	return store.NewScan{Metadata: u.metadata, SHA256: hex.EncodeToString(u.scan.sha256), Size: u.scan.size, BlobKey: u.scan.key,
		IdempotencyKey: idempotencyKey}
}

// known is the answer about a scan that was here already.
func (u *upload) known(rec store.ScanRecord) (Scan, error) {
	scan, err := u.s.scan(u.ctx, rec)
	scan.MetadataDiffers = metadataDiff(u.metadata, scan.Metadata)
	return scan, err
}

// repeated is what create did under the same idempotency key; known says
// whether it did.
func (u *upload) repeated(idempotencyKey string) (scan Scan, known bool, err error) {
	rec, known, err := u.s.cfg.Store.RepeatedScan(u.ctx, siteID(u.ctx), actor(u.ctx), u.row(idempotencyKey))
	if err != nil || !known {
		return Scan{}, false, err
	}
	scan, err = u.known(rec)
	return scan, true, err
}

func mediaType(r *http.Request) (string, map[string]string, error) {
	ct := r.Header.Get("Content-Type")
	if ct == "" {
		return "", nil, nil
	}
	t, params, err := mime.ParseMediaType(ct)
	if err != nil {
		return "", nil, neuroscreen.FieldErrorf(neuroscreen.CodeUnsupported, "unsupported-media-type", "Content-Type", "it cannot be read")
	}
	if t == "multipart/form-data" && params["boundary"] == "" {
		return "", nil, neuroscreen.FieldErrorf(neuroscreen.CodeInvalid, "invalid-multipart", "Content-Type", "it names no boundary")
	}
	return t, params, nil
}

// readRaw takes the whole body as the scan.
func (u *upload) readRaw(r *http.Request, digest string) error {
	want, err := parseDigest(digest)
	if err != nil {
		return err
	}
	body := http.MaxBytesReader(nil, r.Body, u.s.cfg.Limits.MaxUpload)
	return u.storeScan(u.received(body), want)
}

// readMultipart takes the parts in their order.
func (u *upload) readMultipart(r *http.Request, boundary, digest string) error {
	want, err := parseDigest(digest)
	if err != nil {
		return err
	}
	limit := u.s.cfg.Limits.MaxUpload
	var body io.Reader = http.MaxBytesReader(nil, r.Body, limit+maxOverhead)
	var whole hash.Hash
	if want != nil {
		whole = sha256.New()
		body = io.TeeReader(body, whole)
	}
	mr := multipart.NewReader(bufio.NewReaderSize(body, 64<<10), boundary) // which itself asks for 4 kB at a time
	seen := map[string]bool{}
	for {
		part, err := mr.NextPart()
		if err == io.EOF {
			break
		}
		if err != nil {
			return multipartError(err, limit)
		}
		name := part.FormName()
		if seen[name] {
			return neuroscreen.FieldErrorf(neuroscreen.CodeInvalid, "duplicate-part", clip(name), "this part came twice")
		}
		seen[name] = true
		if !seen["metadata"] && (name == "scan" || name == "header") {
			return neuroscreen.FieldErrorf(neuroscreen.CodeInvalid, "metadata-not-first", "metadata", "send the part metadata before the part %s", name)
		}
		partDigest, err := parseDigest(part.Header.Get("Content-Digest"))
		if err != nil {
			return err
		}
		switch name {
		case "metadata":
			data, err := readPart(part, maxMetadata, partDigest)
			if err != nil {
				return err
			}
			if u.metadata, err = u.s.decodeMetadata(data, u.lenient); err != nil {
				return err
			}
		case "header":
			if seen["scan"] && u.waiting == nil {
				return neuroscreen.FieldErrorf(neuroscreen.CodeInvalid, "unknown-part", "header", "the scan is a file with a header of its own; only an .img needs this part")
			}
			if u.header, err = readPart(part, maxHeader, partDigest); err != nil {
				return err
			}
			if len(u.header) == 0 {
				return missing("header", "this part is empty")
			}
		case "scan":
			keep := u.storeScan
			if u.header == nil && isImg(part.FileName()) {
				keep = u.spoolScan
			}
			if err := keep(u.received(http.MaxBytesReader(nil, part, limit)), partDigest); err != nil {
				return multipartError(err, limit)
			}
		default:
			return neuroscreen.FieldErrorf(neuroscreen.CodeInvalid, "unknown-part", clip(name), "the parts are metadata, scan and, for an .img, header")
		}
	}
	for _, name := range []string{"metadata", "scan"} {
		if !seen[name] {
			return missing(name, "this part is missing")
		}
	}
	if whole != nil {
		if _, err := io.Copy(io.Discard, body); err != nil { // what follows the last boundary
			return multipartError(err, limit)
		}
		if !equal(want, whole.Sum(nil)) && !equal(want, u.scan.sha256) {
			return digestMismatch("Content-Digest")
		}
	}
	if u.waiting != nil {
		return u.storeWaiting()
	}
	return nil
}

func isImg(fileName string) bool {
	n := strings.TrimSuffix(strings.ToLower(fileName), ".gz")
	return strings.HasSuffix(n, ".img")
}

// received is the scan as it comes in. While its bytes are worked on it holds
// one of the server's turns, and none while it waits for the client: uploads
// that are all busy would keep every other request waiting behind them.
type received struct {
	turns   chan struct{}
	working bool

	r    io.Reader
	sum  hash.Hash
	size int64
	err  error // why it ended, other than at its end
}

func (u *upload) received(body io.Reader) *received {
	return &received{turns: u.s.turns, r: bodyReader{body, u.s.cfg.Limits.MaxUpload}, sum: sha256.New()}
}

func (in *received) Read(p []byte) (int, error) {
	if in.err != nil {
		return 0, in.err
	}
	in.rest()
	n, err := in.r.Read(p)
	in.turns <- struct{}{}
	in.working = true
	in.sum.Write(p[:n])
	in.size += int64(n)
	if err != io.EOF {
		in.err = err
	}
	return n, err
}

// rest gives the turn to another.
func (in *received) rest() {
	if in.working {
		<-in.turns
		in.working = false
	}
}

// finish reads what is left of in, and compares the whole with the digest.
func (u *upload) finish(in *received, digest []byte) error {
	if _, err := io.Copy(io.Discard, in); err != nil {
		return err
	}
	u.scan.sha256, u.scan.size = in.sum.Sum(nil), in.size
	if digest != nil && !equal(digest, u.scan.sha256) {
		return digestMismatch("Content-Digest")
	}
	return nil
}

// storeScan moves the scan's scrubbed copy into the blob store.
func (u *upload) storeScan(in *received, digest []byte) error {
	return u.storeCopy(func(w io.Writer) error {
		defer in.rest() // before the disk is waited for
		bad := u.scrub(w, in)
		if in.err != nil {
			return in.err // the connection's fault, not the file's
		}
		if _, ok := errors.AsType[*nifti.Error](bad); bad != nil && !(ok && digest != nil) {
			return bad
		}
		// A wrong digest explains a bad image, not the other way round.
		if err := u.finish(in, digest); err != nil {
			return err
		}
		return bad
	})
}

// spoolScan keeps an .img until its header has come: where its data lie, and
// so what of it may be stored, is not known before.
func (u *upload) spoolScan(in *received, digest []byte) (err error) {
	defer in.rest()
	if u.waiting, err = u.s.cfg.Blobs.Spool(u.ctx, in); err != nil {
		return err
	}
	return u.finish(in, digest)
}

// storeWaiting stores the spooled .img, now that its header is there or known
// to be missing.
func (u *upload) storeWaiting() error {
	err := u.storeCopy(func(w io.Writer) error { return u.scrub(w, u.waiting) })
	if e, ok := errors.AsType[*nifti.Error](err); ok && u.header == nil && e.Type == nifti.TypeNotNIfTI {
		return neuroscreen.FieldErrorf(neuroscreen.CodeUnprocessable, nifti.TypeNoHeader, "header", "this is the .img of a pair; send its .hdr as the part header")
	}
	return err
}

// scrub copies the image without free text. What the image shows is the
// analysis's business, but a damaged transfer is told at once: headers, the
// length of the data and the checksum are verified on the way.
func (u *upload) scrub(w io.Writer, image io.Reader) (err error) {
	limits := u.s.cfg.Limits.Image
	if u.header == nil {
		_, err = nifti.Scrub(w, image, limits)
	} else {
		_, err = nifti.ScrubPair(&u.copied, w, bytes.NewReader(u.header), image, limits)
	}
	return err
}

// storeCopy stores what write writes, if that ends without an error; it
// returns write's error, else the store's.
func (u *upload) storeCopy(write func(io.Writer) error) error {
	pr, pw := io.Pipe()
	var info blob.Info
	var err error
	done := make(chan struct{})
	go func() {
		defer close(done)
		info, err = u.put(pr)
		pr.CloseWithError(errStopped)
	}()
	// The request ends after the store has, also when write panics; nothing
	// is stored then.
	defer func() {
		pw.CloseWithError(errStopped)
		<-done
	}()
	pieces := bufio.NewWriterSize(pw, 64<<10) // a compressor writes a few hundred bytes at a time
	bad := write(pieces)
	if bad == nil {
		bad = pieces.Flush()
	}
	pw.CloseWithError(bad) // nil means io.EOF
	<-done
	if bad != nil && !errors.Is(bad, errStopped) {
		return bad // the store may just know that the request has ended
	}
	u.scan.key = info.Key
	return err
}

// errStopped ends a pipe whose other end has given up and says why itself.
var errStopped = errors.New("copy stopped")

// put stores a blob and notes that nobody refers to it yet.
func (u *upload) put(r io.Reader) (blob.Info, error) {
	info, err := u.s.cfg.Blobs.Put(u.ctx, r, nil)
	if err == nil {
		u.stored = append(u.stored, info.Key)
	}
	return info, err
}

// discard removes the stored blobs, except those that some scan refers to. A
// process that is killed before leaves them to the sweep.
func (u *upload) discard() {
	if len(u.stored) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(u.ctx), 10*time.Second)
	defer cancel()
	if _, err := u.s.cfg.Store.ReleaseBlobs(ctx, u.stored, u.s.cfg.Blobs.Remove); err != nil {
		u.s.cfg.Log.Warn("blobs of a refused upload stay until the next sweep", "request_id", requestID(u.ctx), "error", err)
	}
	u.stored = nil
}

// readPart reads a small part whole.
func readPart(part *multipart.Part, limit int64, digest []byte) ([]byte, error) {
	data, err := io.ReadAll(http.MaxBytesReader(nil, part, limit))
	if err != nil {
		return nil, multipartError(err, limit)
	}
	if sum := sha256.Sum256(data); digest != nil && !equal(digest, sum[:]) {
		return nil, digestMismatch("Content-Digest")
	}
	return data, nil
}

// multipartError tells a broken connection from a broken body.
func multipartError(err error, limit int64) error {
	if _, ok := errors.AsType[*neuroscreen.Error](err); ok {
		return err
	}
	if _, ok := errors.AsType[*nifti.Error](err); ok {
		return err
	}
	if strings.HasPrefix(err.Error(), "multipart: ") || strings.HasPrefix(err.Error(), "malformed MIME") {
		return &neuroscreen.Error{Code: neuroscreen.CodeInvalid, Type: "invalid-multipart", Message: "the body is not well-formed multipart/form-data", Err: err}
	}
	return bodyError(err, limit)
}

// bodyReader turns errors of the connection into ours, so that they can be
// told from those of the disk.
type bodyReader struct {
	r     io.Reader
	limit int64
}

func (b bodyReader) Read(p []byte) (int, error) {
	n, err := b.r.Read(p)
	if err != nil && err != io.EOF {
		err = multipartError(err, b.limit)
	}
	return n, err
}

// parseDigest reads Content-Digest (RFC 9530): a dictionary of algorithms. It
// is nil for none. A digest that we could not verify is refused, because
// accepting it would look like verifying it.
func parseDigest(header string) ([]byte, error) {
	if strings.TrimSpace(header) == "" {
		return nil, nil
	}
	bad := neuroscreen.FieldErrorf(neuroscreen.CodeInvalid, "invalid-digest", "Content-Digest", "write it as sha-256=:BASE64:")
	for member := range strings.SplitSeq(header, ",") {
		name, value, ok := strings.Cut(strings.TrimSpace(member), "=")
		if !ok {
			return nil, bad
		}
		if name != "sha-256" {
			continue
		}
		value, _, _ = strings.Cut(value, ";") // parameters
		value = strings.TrimSpace(value)
		if len(value) < 2 || value[0] != ':' || value[len(value)-1] != ':' {
			return nil, bad
		}
		sum, err := base64.StdEncoding.DecodeString(value[1 : len(value)-1])
		if err != nil || len(sum) != sha256.Size {
			return nil, bad
		}
		return sum, nil
	}
	return nil, bad
}

func digestMismatch(field string) error {
	return neuroscreen.FieldErrorf(neuroscreen.CodeInvalid, "digest-mismatch", field, "the received bytes have another SHA-256; nothing was stored, send them again")
}

func equal(a, b []byte) bool { return subtle.ConstantTimeCompare(a, b) == 1 }
