package httpapi

import (
	"context"
	"encoding/json"
	"errors"
	"html/template"
	"log/slog"
	"net/http"
	"strings"

	"neuroscreen"
	"neuroscreen/internal/nifti"
	"neuroscreen/internal/store"
)

// statusOf is the one place where an error becomes an HTTP status.
var statusOf = map[neuroscreen.Code]int{
	neuroscreen.CodeInvalid:         http.StatusBadRequest,
	neuroscreen.CodeUnauthenticated: http.StatusUnauthorized,
	neuroscreen.CodeForbidden:       http.StatusForbidden,
	neuroscreen.CodeNotFound:        http.StatusNotFound,
	neuroscreen.CodeConflict:        http.StatusConflict,
	neuroscreen.CodeTooLarge:        http.StatusRequestEntityTooLarge,
	neuroscreen.CodeUnprocessable:   http.StatusUnprocessableEntity,
	neuroscreen.CodeUnsupported:     http.StatusUnsupportedMediaType,
	neuroscreen.CodeUnavailable:     http.StatusServiceUnavailable,
	neuroscreen.CodeBusy:            http.StatusTooManyRequests,
	neuroscreen.CodeInternal:        http.StatusInternalServerError,
	codeMethod:                      http.StatusMethodNotAllowed,
	codeTimeout:                     http.StatusRequestTimeout,
}

// Codes that only HTTP knows.
const (
	codeMethod  neuroscreen.Code = "method-not-allowed"
	codeTimeout neuroscreen.Code = "request-timeout"
)

// problemDoc explains a problem type, or the code of a reason, on its page. A
// test finds every one in the sources.
type problemDoc struct{ Title, Text string }

var problemDocs = map[string]problemDoc{
	"missing-key":            {"No key", "The call needs a key: Authorization: Bearer KEY, or X-API-Key: KEY. An administrator of your site makes one with POST /v1/keys or neuroscreen keys create. Where an identity provider is configured, its token does too: Authorization: Bearer TOKEN."},
	"invalid-key":            {"Key not accepted", "The key is unknown or was revoked."},
	"invalid-token":          {"Token not accepted", "The bearer token is not a valid one of the identity provider of this service: detail says what is wrong. Get another there, made for this service."},
	"provider-unavailable":   {"The identity provider does not answer", "Tokens can't be checked without it. Try again after Retry-After, or send a key; an administrator finds the cause in the log."},
	"session-ended":          {"The session has ended", "A session ends after some time without use, when its key is revoked, and on signing out. Sign in again."},
	"csrf":                   {"The change did not come from our pages", "A change in a session needs the header X-CSRF-Token with the token from GET /session, and must come from this address."},
	"no-provider":            {"No identity provider", "None is configured here; sign in with a key."},
	"provider-failed":        {"The identity provider said no", "It did not confirm who you are, or could not be reached. Try again; an administrator finds the cause in the log."},
	"no-role":                {"No role here", "Your account at the identity provider has no role at this site. Its administrator gives you one."},
	"person-revoked":         {"Access revoked", "An administrator of this site has revoked your access."},
	"result-changed":         {"Analysed again meanwhile", "The scan has another result than the one you looked at. Look at it before you decide."},
	"other-models":           {"Made with other models", "The result was made by a release with other weights, norms or models. Scored anew, more would change than what is left out: analyse the scan again (POST .../retry), then amend that result."},
	"rescoring-failed":       {"The scores could not be made", "Nothing was changed: the result is the one that it was, and the decision was not recorded. Try again; the server's log tells an administrator more."},
	"structure-left-out":     {"Left out by a reviewer", "A reviewer left a structure out of a visit's result; it is not compared with other visits. An amendment of that visit takes it back in."},
	"structure-excluded":     {"Left out by a reviewer", "The score needs a structure that a reviewer left out. Amend the result to take it back in."},
	"reviewed-meanwhile":     {"Decided meanwhile", "Somebody else decided on this case since you opened it. Look at that decision first; yours can follow it."},
	"case-held":              {"Somebody else has this case open", "Wait, or take it over on purpose: PUT .../hold with take_over."},
	"role-not-allowed":       {"The key's role does not allow this", "Ask an administrator of your site for a key with another role. The contract's page says which roles may make a call."},
	"not-found":              {"Nothing there", "There is no such thing at your site: the address is wrong, it was erased, or it belongs to another site."},
	"scan-not-found":         {"No such scan", "There is no such scan at your site: the address is wrong, it was erased, or it belongs to another site."},
	"result-not-found":       {"No such result version", "The scan has no result of this version, or there is no such scan at your site."},
	"file-not-found":         {"No such file", "The result version has no such file, or there is no such scan at your site."},
	"key-not-found":          {"No such key", "There is no such key at your site."},
	"site-not-found":         {"No such site", "There is no such site, or your key belongs to another one. GET /v1/sites names yours."},
	"subject-not-found":      {"No such person", "Your site has no scan of this person: check the identifier, or the scans were erased."},
	"settings-not-found":     {"No such version of the settings", "The site's settings have no such version. GET /v1/sites/{site}/settings/versions lists them."},
	"settings-changed":       {"The settings were changed meanwhile", "Somebody stored another version after the one named in replaces. Look at the newest, then send the change again."},
	"method-not-allowed":     {"Method not allowed", "The address exists, but not with this method."},
	"missing-field":          {"A field is missing", "The field named in field is needed."},
	"unknown-field":          {"A field is not known", "The field named in field is not in the contract. It is refused rather than ignored, because a misspelt name would otherwise be lost silently."},
	"unknown-parameter":      {"A parameter is not known", "The query parameter named in field is not in the contract of this call."},
	"invalid-value":          {"A value is not allowed", "The value of the field, parameter or header named in field is outside what the contract allows."},
	"invalid-date":           {"A date is wrong", "Dates are written YYYY-MM-DD. A birth date lies before the scan date, and a scan date not in the future."},
	"age-contradicts-dates":  {"Age and dates disagree", "age_years differs by more than a year from what birth_date and scan_date give, or is that of an adult before the 18th birthday. One of them may belong to somebody else: check, then send only what is right."},
	"invalid-json":           {"Not JSON", "The body, or the metadata part, could not be read as one JSON object."},
	"invalid-query":          {"The query cannot be read", "The part of the address after the question mark is not well formed."},
	"invalid-multipart":      {"The multipart body cannot be read", "The body does not follow multipart/form-data, or ends before its last boundary."},
	"metadata-not-first":     {"The metadata must come first", "Send the part metadata before the part scan, so that a scan is never stored before it is known whose it is."},
	"metadata-twice":         {"Metadata given twice", "With multipart/form-data the metadata are a part of the body; query parameters are for raw bodies."},
	"unknown-part":           {"A part is not known", "The parts of an upload are metadata, scan and, for an .img, header."},
	"duplicate-part":         {"A part came twice", "Each part may come once."},
	"missing-body":           {"No body", "The call needs a body."},
	"incomplete-body":        {"The body ended early", "The connection was cut, or fewer bytes came than announced. Nothing was stored; send it again."},
	"body-too-large":         {"Too large", "The request is over the size limit named in detail."},
	"unsupported-media-type": {"Media type not read", "The contract lists the media types of each call. An upload is multipart/form-data or application/octet-stream."},
	"invalid-digest":         {"Content-Digest cannot be read", "Write it as in RFC 9530: Content-Digest: sha-256=:BASE64: . Only sha-256 is verified, so only sha-256 is accepted."},
	"digest-mismatch":        {"The bytes are not those that were announced", "The received bytes have another SHA-256 than Content-Digest says: they were changed on the way. Nothing was stored; send them again."},
	"idempotency-key-reused": {"Idempotency key reused", "This Idempotency-Key came before with another scan or other metadata. Use a new key for a new upload."},
	"memory-busy":            {"No memory free", "Analyses and pictures take all that there is. Try again after Retry-After."},
	"request-timeout":        {"Too slow", "No bytes came for too long. Nothing was stored; send it again."},
	"no-filter":              {"A parameter is needed", "Say what to look for: subject_id or accession_number."},
	"not-ready":              {"Not ready yet", "The scan is still being analysed. Follow its events, or ask again later."},
	"scan-refused":           {"The scan was refused", "It cannot be analysed, nor decoded if it is a functional run; reasons or detail says why. There is no result."},
	"scan-failed":            {"The analysis failed", "The analysis ended with an error; reasons says which. POST .../retry starts it again."},
	"scan-cancelled":         {"The analysis was cancelled", "POST .../retry starts it again."},
	"cancelled":              {"Cancelled", "Somebody cancelled the analysis. POST .../retry starts it again; the bytes and the metadata are still there."},
	"retried":                {"Analysed again", "Somebody asked for another analysis of the same bytes. Earlier results stay as versions."},
	"completed":              {"Completed", "What the scan lacked came later, so that it is analysed again."},
	"result-withdrawn":       {"The result was withdrawn", "A reviewer rejected it, or another version replaced it: it is not given out as a document any more. GET .../result shows what stands."},
	"no-dicom-source":        {"No DICOM source", "DICOM output belongs to the study that the scan came from: post study_instance_uid and series_instance_uid with it, for the segmentation frame_of_reference_uid and sop_instance_uids too. The same bytes may be posted again with them."},
	"sheared-grid":           {"The scan's axes are not at right angles", "DICOM has no slices for such a grid. Take segmentation.nii.gz."},
	"scan-final":             {"The analysis has ended", "A scan that has ended cannot be cancelled."},
	"scan-running":           {"The analysis is under way", "Wait until it has ended, or cancel it first."},
	"scan-bytes-removed":     {"The scan's bytes were removed", "This deployment keeps the bytes of a scan for a time only; its results stay. Post the same file again, then repeat the call."},
	"tus-version":            {"Version of the protocol", "Uploads in pieces follow tus 1.0.0: send Tus-Resumable: 1.0.0."},
	"upload-not-found":       {"No such upload", "There is no such upload at your site: it became a scan, was deleted, or was not written to for a day."},
	"upload-offset":          {"The upload stands elsewhere", "Ask with HEAD how much has come, and go on from there."},
	"upload-incomplete":      {"The upload is not whole", "Send the rest first; HEAD tells how much has come."},
	"upload-busy":            {"Another request is at this upload", "Try again in a few seconds."},
	"too-many-uploads":       {"Too many uploads", "Too many uploads are under way or unfinished. Finish or delete some, and try again later."},
	"decoding-not-found":     {"No such decoding", "There is no such decoding at your site: the address is wrong, it was erased, or a scan of it was."},
	"decoding-not-ready":     {"No weights", "The decoding waits, is under way, or ended without a result: its state and reasons say which."},
	"not-bold":               {"Not a functional run", "Decoding works on scans that were posted with the modality bold."},
	"different-subjects":     {"Scans of different people", "A decoding learns from one person's runs and is tested on that person's."},
	"too-many-decodings":     {"Too many decodings", "Your site has as many decodings waiting as it may. Send it again when some have ended."},
	"too-many-streams":       {"Too many event streams", "As many event streams are open with this key as one may have. Close some, or follow scans by webhook."},
	"watch-not-found":        {"No such watch", "There is no such watch at your site on this server: it was forgotten, nothing came for half an hour, or the server was started again."},
	"too-many-watches":       {"Too many watches", "As many runs are watched as this server may. Delete one that has ended."},
	"volume-ahead":           {"A volume is missing", "Volumes are looked at in their order, and too many wait already. Send the one that is named in detail first."},
	"volume-differs":         {"Another volume under this number", "The volume of this number came before with other bytes."},
	"webhook-not-found":      {"No such webhook", "There is no such webhook at your site."},
	"too-many-webhooks":      {"Too many webhooks", "Delete one that is no longer needed first."},
	"last-admin-key":         {"The last admin key", "Make another admin key first, otherwise nobody could administer the site any more."},
	"identifiers-withheld":   {"Identifiers are withheld", "Keys with the role researcher work on pseudonyms and cannot search for identifiers."},
	"wrong-secret":           {"Another deployment's database", "The database was made with another secret. Put back the secret that belongs to it."},
	"audit-broken":           {"The audit trail was changed", "An entry was changed, is missing or was added outside of the service."},
	"storage-full":           {"No room", "The server's disk is full. Nothing was stored; try again later and tell the administrator."},
	"blob-missing":           {"The stored file is not there", "Post the scan again."},
	"unready":                {"Not ready to serve", "A dependency does not answer. detail names it."},
	"database-unavailable":   {"The database does not answer", "Try again later; the server's administrator finds the cause in its log."},
	"unavailable":            {"Not available", "A dependency does not answer; try again later."},
	"internal":               {"An error of ours", "The server's log has the details under request_id."},

	nifti.TypeEmpty:               {"The file is empty", "The file has no bytes; the transfer probably failed."},
	nifti.TypeNotNIfTI:            {"Not a NIfTI file", "The scan must be NIfTI-1, NIfTI-2 or ANALYZE 7.5, plain or gzipped. DICOM series are converted with dcm2niix."},
	nifti.TypeBadGzip:             {"Damaged compression", "The gzip stream cannot be decompressed or its checksum is wrong. Send the file again."},
	nifti.TypeTruncated:           {"The file ends early", "The file holds fewer bytes than its header announces. Send it again."},
	nifti.TypeNoData:              {"Header without data", "This is the header of a pair, or a file that ends after its header. Send the data too."},
	nifti.TypeNoHeader:            {"Data without header", "This is the .img of a pair. Send the .hdr as the part header."},
	nifti.TypeBadHeader:           {"A header field is wrong", "The NIfTI header field named in field contradicts the standard."},
	nifti.TypeAbsurdDimensions:    {"Impossible dimensions", "The dimensions in the header are zero, negative or overflow."},
	nifti.TypeUnsupportedDatatype: {"Voxel type not read", "Complex, colour, 128-bit and one-bit voxels are not brain scans; convert the file to a real number type."},
	nifti.TypeTooLarge:            {"The image is too large", "The image's dimensions, or its size after decompression, are over the limit."},

	// What refuses a scan; the reasons beside it give the values found and the limits.
	"unsupported-modality":     {"Modality not analysed", "Volumes are measured on T1-weighted scans (T1w), motion and networks on functional runs (bold)."},
	"under-18":                 {"Under 18 years", "Reference values and models hold adults of 18 years and over only."},
	"contrast-agent":           {"Contrast agent", "A contrast agent changes the grey values that volumes rest on. Send the series from before the injection."},
	"not-3d":                   {"Not one three-dimensional volume", "Of a series over time or of several echoes, send the one anatomical volume."},
	"too-many-voxels":          {"Too many voxels", "Send the image resampled to about 1 mm."},
	"unusable-affine":          {"The header's geometry cannot be used", "The affine is singular, not finite, or contradicts the voxel size. Convert the original DICOM series to NIfTI again."},
	"orientation-unknown":      {"Left and right cannot be told apart", "The header does not say how the voxels lie in the head, or says it twice and differently. Convert the original DICOM series to NIfTI again."},
	"thick-slices":             {"Slices are too thick", "Small structures cannot be measured in voxels over 3 mm. Send a 3-D acquisition with voxels of about 1 mm."},
	"field-of-view-cut":        {"The head is cut", "The image is too small for a whole adult brain, or its edge cuts the brain. Send the whole head, and check the header's voxel size."},
	"implausible-geometry":     {"The image is larger than any head", "This is no head scan, or the unit in the header is wrong."},
	"not-finite":               {"Voxels that are no numbers", "Too many voxels are NaN or infinite. If they stand for background, write 0 there."},
	"empty-image":              {"Nothing in the image", "Nearly all of the image is background. Send the scan itself, not a mask or an empty export."},
	"not-an-intensity-image":   {"Not a scan but a map", "The values are those of a mask, a label map or a drawing. Send the scan itself."},
	"not-t1":                   {"Not T1-weighted", "White matter, grey matter and CSF do not have the order or contrast of a T1-weighted scan. Send the T1-weighted scan."},
	"not-a-brain":              {"No brain was found", "Nothing in the image can be measured as an adult brain. Send a T1-weighted scan of a whole adult head."},
	"implausible-segmentation": {"The labels cannot be right", "Volumes or places of structures came out as no brain has them. Look at the image for artefacts, surgery or a large lesion."},
	"not-4d":                   {"Not a run over time", "A functional run holds three-dimensional volumes over time. Send the whole series as one file."},
	"too-few-volumes":          {"Too few volumes", "A functional run of fewer than 20 volumes says nothing."},
	"tr-ambiguous":             {"The repetition time is not known", "The file states none, or two. Send tr_s with the scan: the seconds from one volume to the next."},
	"tr-invalid":               {"Not a repetition time", "tr_s is in seconds, 0.1 to 30."},
	"events-invalid":           {"The events cannot be used", "Events are a BIDS events.tsv: columns onset, duration and trial_type, in seconds from the first volume, and run for several runs in one file."},
	"too-few-events":           {"Too few events", "Decoding learns from some runs and is tested on another: at least two runs with at least two conditions each are needed."},
	"grids-differ":             {"The files' voxels don't correspond", "Files of one decoding need the same number of voxels, of the same size and stored in the same order. The head may lie elsewhere."},
	"file-twice":               {"A file given twice", "What is learnt from must not be tested on. Name every run once."},
	"no-signal":                {"No signal", "The brain's values are not over 0, as after the mean was taken out. Send the run as it was reconstructed."},
	"not-aligned":              {"The head cannot be followed", "The volumes show too little of a head, or it left the field of view."},
	"refused":                  {"The scan cannot be analysed", "The analysis gave no closer reason."},

	// What asks a reader to look twice, or, when it is grave, withholds the scores.
	"low-contrast":      {"Little contrast", "The border between white and grey matter is unsure."},
	"unusual-head-size": {"Unusual head size", "Check the outline of the brain in the preview."},
	"large-asymmetry":   {"The sides differ", "Look for surgery, stroke, a mass, or a part of the head that is missing."},
	"template-space":    {"The image lies in a template's space", "Its sizes and volumes may be the template's and not this person's, so nothing is scored, and its places are not those of the study, so it has no DICOM objects. Send the scan as it left the scanner."},
	"skull-stripped":    {"The skull was removed", "How tightly decides the intracranial volume. A whole head measures better."},
	"noise":             {"Noise", "Noise is large beside the contrast between white and grey matter."},
	"blurred-tissues":   {"Tissues overlap", "White and grey matter differ less than each varies: noise, motion, or little contrast."},
	"uneven-signal":     {"Uneven signal", "The signal of white matter varies over the head, as with a failing coil."},
	"motion":            {"Motion", "There are ghosts beside the head: the patient moved."},
	"coarse-voxels":     {"Coarse voxels", "Small structures are measured less exactly."},
	"unsure-labels":     {"Unsure labels", "The network is not sure of its labels."},
	"unstable-labels":   {"Unstable labels", "The labels of the head and of its mirror image disagree."},

	// What goes with a functional run.
	"tr-disagrees":           {"Two repetition times", "The file says something else than the metadata, which were followed."},
	"dummy-scans":            {"Dummy scans", "The first volumes were taken before the magnetisation was steady and are left out."},
	"too-short":              {"A short run", "Under four minutes networks are mostly noise; they are given, but must not be compared."},
	"head-motion":            {"Head motion", "The head moved more from frame to frame than cleaning makes good."},
	"low-tsnr":               {"Little signal", "The signal is small beside its noise over time."},
	"brain-out-of-view":      {"Part of the brain out of view", "The head moved so far that part of the brain left the field of view; what was lost is missing from every measure."},
	"few-usable-frames":      {"Too little that can be used", "Volumes during motion leave less than four minutes: make the run longer or repeat it."},
	"few-degrees-of-freedom": {"Too little is left", "Cleaning takes out nearly all that varies, so that nothing is read from the signal. A longer run leaves more."},
	"no-structures":          {"Too few structures", "Too few structures lie in the run's volumes for a network."},
	"place-unknown":          {"No place in MNI space", "Too few structures of the run fit the standard brain, or they fit badly: what needs MNI space is not given."},
	"t1-unused":              {"The T1 was not used", "The T1 of the same person doesn't fit the run; the run's own labels were used instead."},
	"coordinates-invalid":    {"Coordinates can't be used", "The table of coordinates has an error; the text names the line and what to do."},

	// What limits the comparison with healthy people.
	"age-outside-norm":          {"No norm for this age", "The norm covers 18 to 100 years; volumes are given without z."},
	"sex-missing":               {"No norm without the sex", "Volumes are given without z."},
	"head-size-missing":         {"No norm without the head size", "The intracranial volume is not known; volumes are given without z."},
	"head-size-implausible":     {"Head size impossible", "The intracranial volume is not that of an adult; volumes are given without z."},
	"head-size-clamped":         {"Head size beyond the norm", "The head is compared with the smallest or largest that the norm holds."},
	"volume-not-finite":         {"A volume is missing", "A structure has no usable volume and is left out."},
	"segmenter-not-calibrated":  {"Segmenter not calibrated", "No healthy people were measured with this segmenter for the norm: what its offset may be widens every interval. Controls of the site, measured with it, take the doubt away."},
	"site-shift-not-applicable": {"The site's shift does not apply", "It was measured with another segmenter, other weights of the network or another version of the segmenter's shift. Measure the site's controls again."},
	"site-shift-other-scanner":  {"The site's shift is of another scanner", "Its controls were scanned elsewhere; the spread between sites widens the intervals until controls of this scanner are measured."},
	"site-not-calibrated":       {"Site not calibrated", "Fewer than 20 local controls are stored; the spread between sites widens the intervals."},
	"invalid-shift":             {"A shift cannot be read", "The shift is not the document that neuroscreen validate writes; field names the part at fault, detail says why."},
	"no-controls":               {"No usable control", "No healthy person lies within the norm's range: 18 to 100 years, sex F or M, intracranial volume in mm3."},
	"no-people":                 {"Nobody to score", "The manifest holds nobody with what a score needs."},
	"missing-column":            {"A column is missing", "The manifest lacks the column that is named in detail."},
	"mixed-segmenters":          {"Several segmenters in one manifest", "Volumes of different programs can't be pooled. Validate each alone."},
	"invalid-proposal":          {"A proposal cannot be read", "Send the document that neuroscreen validate --propose wrote, unchanged."},
	"no-norm":                   {"No curve for this structure", "The norm holds no curve of this structure for the network's volumes: the name is wrong, or it is only known from the cortical surface. Results give null for it too."},

	// What a reader of a timeline must know.
	"visit-rejected":         {"A visit was rejected", "A reviewer rejected the result of at least one scan; it is compared with none."},
	"changes-by-chance":      {"Some changes are chance", "With many structures compared, a few differ by more than their error though nothing changed."},
	"visit-quality-in-doubt": {"Quality in doubt", "At least one scan of the timeline is to be reviewed: a change may be its artefact."},
	"scanner-not-named":      {"Scanner not named", "Post scanner with every scan; without it one scanner is assumed."},
	"scanner-changed":        {"Another scanner", "Scanner, manufacturer or field strength of the scans differ. The spread between sites widens the smallest detectable change."},
	"voxels-changed":         {"Another voxel size", "The voxels of two visits differ by more than 0.1 mm. Another protocol measures small structures differently."},
	"weights-changed":        {"Other weights", "The network was replaced between the analyses. POST /v1/scans/{scan_id}/retry measures the older scan with the present one."},
	"time-between-unknown":   {"Time between visits not known", "Post scan_date; the change per year needs it."},
	"same-day":               {"Two scans of one day", "A change per year is only given between visits that lie apart; what differs between these two is error, or another protocol."},
	"time-from-ages":         {"Time from ages", "Scan dates are missing; the time between visits was taken from the ages."},
	"sex-differs":            {"The sexes differ", "One person's scans were posted with different sexes: correct it with PATCH, or a scan is somebody else's."},
	"head-size-differs":      {"The head sizes differ", "An adult's intracranial volume does not change: one scan may be cropped, stripped or somebody else's."},

	// Why a result that was announced counts no longer.
	"corrected": {"Corrected", "What was said of the scan was corrected; a new result follows."},
	"amended":   {"Amended", "A reader left structures out of the result or took them back in: another version has taken its place, and scan.scored told of it. Take that over instead."},
	"rejected":  {"Rejected", "A reader rejected the result. Remove what was taken over from it."},
	"erased":    {"Erased", "The scan was erased. Remove what was taken over from its result."},

	// How an analysis can end without a result, or start again.
	"worker-lost":      {"The worker ended without an answer", "The last attempt ended without an answer: its worker was killed, out of memory, or stopped while the database was away. An administrator finds the cause in the workers' logs; POST .../retry starts again."},
	"worker-stopped":   {"The worker was stopped", "Another worker goes on; nothing need be done."},
	"no-image":         {"No image of the series", "The gateway could make none: its log says why. A damaged or incomplete transfer can be sent again; a compression that its converter does not know, sent without."},
	"image-not-taken":  {"The image was not taken", "The service answered the gateway that it cannot take what was made of the series; the gateway's log has the answer."},
	"no-bytes":         {"There is no image", "Only that the series could not be handed over is known of this scan. Send the series again; it then is a scan of its own."},
	"missing-age":      {"The age is not known", "Neither an age nor dates that can be right came with the scan. PATCH the scan, or correct the source and send the scan again; it is then analysed."},
	"missing-sex":      {"The sex is not known", "It did not come with the scan, and reference values need it. PATCH the scan, or correct the source and send the scan again; it is then analysed."},
	"too-much-memory":  {"Too large for the workers' memory", "The analysis would take more memory than there is for it: value is that in MB, limit what there is. Send the scan resampled to about 1 mm, or have an administrator start the workers with more (--memory); POST .../retry starts the analysis again."},
	"timeout":          {"The analysis took too long", "It did not end within its time. POST .../retry starts it again."},
	"invalid-settings": {"A setting cannot be meant", "field names the setting, detail the values that it may have. Of a scan: an administrator corrects the site's settings, and POST .../retry starts the analysis again."},
}

// scanError is an error about a scan's state; the problem tells that state.
type scanError struct {
	err  *neuroscreen.Error
	scan store.ScanRecord
}

func (e *scanError) Error() string { return e.err.Error() }
func (e *scanError) Unwrap() error { return e.err }

// asError is neuroscreen.AsError for what may come out of a handler.
func asError(err error) *neuroscreen.Error {
	if e, ok := errors.AsType[*neuroscreen.Error](err); ok {
		return e
	}
	if e, ok := errors.AsType[*nifti.Error](err); ok {
		return imageError(e)
	}
	if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return neuroscreen.Errorf(neuroscreen.CodeTooLarge, "body-too-large", "the request is over the size limit")
	}
	return neuroscreen.AsError(err)
}

// imageError blames the posted file.
func imageError(e *nifti.Error) *neuroscreen.Error {
	code := neuroscreen.CodeUnprocessable
	if e.Type == nifti.TypeTooLarge {
		code = neuroscreen.CodeTooLarge
	}
	field := e.Field
	if field == "" {
		field = "scan"
	}
	return &neuroscreen.Error{Code: code, Type: e.Type, Field: field, Message: e.Msg, Err: e.Err}
}

// problemOf turns an error into the document for the client.
func problemOf(ctx context.Context, err error) Problem {
	e := asError(err)
	status, ok := statusOf[e.Code]
	if !ok {
		status = http.StatusInternalServerError
	}
	p := Problem{Type: "/problems/" + e.Type, Title: problemTitle(e.Type), Status: status}
	if e.Message != "" {
		p.Detail = &e.Message
	}
	if e.Field != "" {
		p.Field = &e.Field
	}
	if id := requestID(ctx); id != "" {
		p.RequestID = &id
	}
	if se, ok := errors.AsType[*scanError](err); ok {
		p.ScanID = &se.scan.ID
		p.State = &se.scan.State
		p.Reasons = se.scan.Reasons
	}
	return p
}

func problemTitle(typ string) string {
	if d, ok := problemDocs[typ]; ok {
		return d.Title
	}
	words := strings.ReplaceAll(typ, "-", " ")
	if words == "" {
		return "Problem"
	}
	return strings.ToUpper(words[:1]) + words[1:]
}

// writeProblem answers with the problem, after reading what is left of the
// body: many clients send all of it before they look at the answer, and would
// see a reset connection instead. Only internal errors are logged.
func (s *Server) writeProblem(w http.ResponseWriter, r *http.Request, err error) {
	ctx := r.Context()
	p := problemOf(ctx, err)
	e := asError(err)
	if e.Code == neuroscreen.CodeInternal || e.Code == neuroscreen.CodeUnavailable {
		s.cfg.Log.LogAttrs(ctx, slog.LevelError, "request failed",
			slog.String("request_id", requestID(ctx)), slog.String("type", e.Type), slog.Any("error", err))
	}
	s.metrics.problems.WithLabelValues(e.Type).Inc()
	if x := exchangeFrom(ctx); x != nil {
		if x.answered {
			return // too late to say anything
		}
		x.body.drain()
	}
	h := w.Header()
	h.Set("Content-Type", "application/problem+json")
	h.Set("Cache-Control", "no-store")
	for _, k := range []string{"ETag", "Location", "Content-Encoding", "Content-Length"} {
		h.Del(k)
	}
	switch p.Status {
	case http.StatusUnauthorized:
		challenge := `Bearer realm="neuroscreen"`
		if e.Type == "invalid-token" {
			challenge += `, error="invalid_token"` // RFC 6750, 3.1
		}
		h.Set("WWW-Authenticate", challenge)
	case http.StatusServiceUnavailable, http.StatusTooManyRequests:
		h.Set("Retry-After", "5")
	}
	w.WriteHeader(p.Status)
	json.NewEncoder(w).Encode(p)
}

// GetProblemPage is where the types of problems point.
func (s *Server) GetProblemPage(ctx context.Context, req GetProblemPageRequestObject) (GetProblemPageResponseObject, error) {
	doc, ok := problemDocs[req.Name]
	if !ok {
		return nil, errNotFound()
	}
	return page{problemPage, struct {
		Name string
		problemDoc
	}{req.Name, doc}}, nil
}

var problemPage = template.Must(template.New("problem").Parse(pageHead + `
<title>{{.Title}}</title>
<h1>{{.Title}}</h1>
<p><code>/problems/{{.Name}}</code></p>
<p>{{.Text}}</p>
<p><a href="/docs">The contract</a></p>
`))

func errNotFound() error {
	return neuroscreen.Errorf(neuroscreen.CodeNotFound, "not-found", "there is nothing here for this key")
}
