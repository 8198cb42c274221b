package httpapi

import (
	"slices"

	"neuroscreen"
)

// access says who may call an operation. The zero value lets nobody in.
type access struct {
	public bool               // no key needed
	idle   bool               // called by pages on their own: does not keep a session alive
	roles  []neuroscreen.Role // admins may always
	stream bool               // reads a large body by itself
	upload bool               // works on a scan's bytes, under one of Limits.Uploads
	extra  bool               // ignores query parameters that the contract does not name
	audit  string             // action written to the audit trail when patient data were read; changes write their own
}

const (
	uploader   = neuroscreen.Uploader
	clinician  = neuroscreen.Clinician
	researcher = neuroscreen.Researcher
	admin      = neuroscreen.Admin
)

func roles(r ...neuroscreen.Role) []neuroscreen.Role { return r }

var everyone = roles(uploader, clinician, researcher, admin)

// operations has one row for each operationId of the contract. One that is
// missing here is refused, and a test fails.
var operations = map[string]access{
	"createScan":       {roles: roles(uploader), stream: true, upload: true},
	"createUpload":     {roles: roles(uploader)},
	"getUpload":        {roles: roles(uploader)},
	"appendUpload":     {roles: roles(uploader), stream: true, upload: true},
	"deleteUpload":     {roles: roles(uploader)},
	"finishUpload":     {roles: roles(uploader), upload: true},
	"createRefusal":    {roles: roles(uploader)},
	"findScans":        {roles: roles(uploader, clinician), audit: "scan.find"},
	"getScan":          {roles: everyone, audit: "scan.read"},
	"streamScanEvents": {roles: everyone, audit: "scan.events", idle: true},
	"updateScan":       {roles: roles(uploader, clinician)},
	"retryScan":        {roles: roles(uploader, clinician)},
	"cancelScan":       {roles: roles(uploader, clinician)},
	"deleteScan":       {roles: roles(admin)},

	"getResult":       {roles: roles(clinician, researcher), audit: "result.read"},
	"getSegmentation": {roles: roles(clinician, researcher), audit: "segmentation.read"},
	"getPreview":      {roles: roles(clinician, researcher), audit: "preview.read"},
	"getRunFile":      {roles: roles(clinician, researcher), audit: "run-file.read"},
	"getReport":       {roles: roles(clinician, researcher), audit: "report.read"},
	"getReportPDF":    {roles: roles(clinician, researcher), audit: "report.read"},
	"getFHIR":         {roles: roles(clinician, researcher), audit: "report.read"},
	"getDICOMReport":  {roles: roles(clinician), audit: "report.read"},
	"getDICOMLabels":  {roles: roles(clinician), audit: "segmentation.read"},
	"getReading":      {roles: roles(clinician, researcher), audit: "reading.read"},
	"getImage":        {roles: roles(clinician), audit: "image.read"},

	"listCases":       {roles: roles(clinician, researcher), audit: "cases.list"},
	"getTimeline":     {roles: roles(clinician, researcher), audit: "timeline.read"},
	"getCaseTimeline": {roles: roles(clinician, researcher), audit: "timeline.read"},
	"getCohort":       {roles: roles(clinician, researcher), audit: "cohort.read"},
	"getNormCurve":    {roles: roles(clinician, researcher)},
	"searchCases":     {roles: roles(clinician), audit: "cases.search"},
	"streamCases":     {roles: roles(clinician, researcher), idle: true}, // counts only
	"getCase":         {roles: roles(clinician, researcher), audit: "case.read"},
	"holdCase":        {roles: roles(clinician), idle: true},
	"releaseCase":     {roles: roles(clinician), idle: true},
	"listReviews":     {roles: roles(clinician, researcher), audit: "reviews.read"},
	"reviewCase":      {roles: roles(clinician)},

	"createDecoding":     {roles: roles(clinician, researcher)},
	"listDecodings":      {roles: roles(clinician, researcher), audit: "decodings.list"},
	"getDecoding":        {roles: roles(clinician, researcher), audit: "decoding.read"},
	"getDecodingWeights": {roles: roles(clinician, researcher), audit: "decoding.weights"},
	"deleteDecoding":     {roles: roles(clinician, researcher)},

	"createWatch":    {roles: roles(uploader, clinician, researcher)},
	"getWatch":       {roles: roles(uploader, clinician, researcher)}, // figures of nobody who is named
	"putWatchVolume": {roles: roles(uploader, clinician, researcher), stream: true, upload: true},
	"deleteWatch":    {roles: roles(uploader, clinician, researcher)},

	"signIn":              {public: true},
	"getSession":          {roles: everyone},
	"signOut":             {roles: everyone},
	"startProviderSignIn": {public: true},
	"endProviderSignIn":   {public: true, extra: true}, // as RFC 6749, 4.1.2, asks: providers add their own

	"listKeys":      {roles: roles(admin)},
	"createKey":     {roles: roles(admin)},
	"revokeKey":     {roles: roles(admin)},
	"listAudit":     {roles: roles(admin)},
	"listWebhooks":  {roles: roles(admin)},
	"createWebhook": {roles: roles(admin)},
	"deleteWebhook": {roles: roles(admin)},
	"verifyAudit":   {roles: roles(admin)},
	"eraseSubject":  {roles: roles(admin)},

	"listSites":          {roles: everyone},
	"getSiteSettings":    {roles: roles(admin)},
	"putSiteSettings":    {roles: roles(admin)},
	"putSiteCalibration": {roles: roles(admin)},
	"listSiteSettings":   {roles: roles(admin)},

	"listModels": {roles: everyone},
	"getMetrics": {roles: everyone}, // counts over all sites, nothing of any one

	"getHealth":      {public: true},
	"getReadiness":   {public: true},
	"getContract":    {public: true},
	"getDocs":        {public: true},
	"getProblemPage": {public: true},
	"getHome":        {public: true},
	"getAsset":       {public: true},
}

func (a access) allows(role neuroscreen.Role) bool {
	return len(a.roles) > 0 && (role == neuroscreen.Admin || slices.Contains(a.roles, role))
}

// seesIdentifiers: researchers work on pseudonyms.
func seesIdentifiers(role neuroscreen.Role) bool { return role != neuroscreen.Researcher }
