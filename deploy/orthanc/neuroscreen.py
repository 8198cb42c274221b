"""Orthanc hands stable T1 series to NeuroScreen by itself, and keeps the
results that a reader lets stand beside them.

A series is stable when nothing came for StableAge seconds. Each one is decided
once: posted, left alone, or impossible, with the reason. The decision stands
in the series' metadata NeuroScreen (GET /series/ID/metadata/NeuroScreen) and
in Orthanc's log. While the service does not answer, the series waits and is
tried again; after a restart, series without a decision are looked at again.

Settings, in Orthanc's environment:
  NEUROSCREEN_SERVER         address of the service, http://127.0.0.1:8080
  NEUROSCREEN_KEY_FILE       file that holds a key with the role uploader
  NEUROSCREEN_RETRY_SECONDS  after how long a series that waits is tried again, 30

Results come back where the service's webhook for result.accepted and
result.withdrawn leads to this script. What stands is fetched and stored
(a structured report and a segmentation in the study of the scan); what is
withdrawn is deleted. The answer is 204 once that is done, and the service
sends again what was not. What was amended with a comment only stands.

  NEUROSCREEN_WEBHOOK_SECRET_FILE  file that holds the webhook's secret; without it nothing comes back
  NEUROSCREEN_WEBHOOK_LISTEN       where webhooks are taken, 127.0.0.1:8043
  NEUROSCREEN_RESULTS_KEY_FILE     file that holds a key with the role clinician
  NEUROSCREEN_SEND_TO              modality of Orthanc's that results are sent on to, none by default
  NEUROSCREEN_REJECT_AT            modality that is told by a rejection note (IHE IOCM) of what counts no longer, none by default

The conversion is dcm2niix's. Whether the image is what its tags say, and
whether age and sex are known, is for the service to find out: what it refuses
is in its worklist, with the reason.
"""

import base64
import gzip
import hashlib
import hmac
import http.server
import json
import os
import queue
import re
import subprocess
import tempfile
import threading
import time
import urllib.error
import urllib.request
import uuid

SERVER = os.environ.get("NEUROSCREEN_SERVER", "http://127.0.0.1:8080").rstrip("/")
KEY_FILE = os.environ.get("NEUROSCREEN_KEY_FILE", "/etc/orthanc/neuroscreen.key")
DECISION = "NeuroScreen"
RETRY_SECONDS = float(os.environ.get("NEUROSCREEN_RETRY_SECONDS", "30"))
CONVERT_SECONDS = 600
SECRET_FILE = os.environ.get("NEUROSCREEN_WEBHOOK_SECRET_FILE", "")
LISTEN = os.environ.get("NEUROSCREEN_WEBHOOK_LISTEN", "127.0.0.1:8043")
RESULTS_KEY_FILE = os.environ.get("NEUROSCREEN_RESULTS_KEY_FILE", "")
SEND_TO = os.environ.get("NEUROSCREEN_SEND_TO", "")
REJECT_AT = os.environ.get("NEUROSCREEN_REJECT_AT", "")
RESULT = "NeuroScreenResult"  # metadata of a series that holds a result or a rejection note: of which scan
FEWEST_SLICES = 60  # a whole head in slices of at most 3 mm
SEGMENTATION_STORAGE = "1.2.840.10008.5.1.4.1.1.66.4"
KEY_OBJECT_SELECTION = "1.2.840.10008.5.1.4.1.1.88.59"
MR_IMAGE_STORAGE = ("1.2.840.10008.5.1.4.1.1.4", "1.2.840.10008.5.1.4.1.1.4.1")  # and enhanced


class LeftAlone(Exception):
    """The series is not for NeuroScreen."""


class Impossible(Exception):
    """The series is a T1, but there is nothing that could be posted. The
    service is told, so that it stands in the worklist: code says why."""

    def __init__(self, why, code):
        super().__init__(why)
        self.code = code


# Words of a series' description, between anything that is no letter or digit.
NOT_T1 = r"localizer|localiser|locator|scout|\w*survey\w*|loc|\w*ref ?scan|flair|t2w?|t2star|pd|swi\w*|dwi|dti|adc|trace|fa|tof|mra|angio|perf\w*|asl|bold|fmri|rest\w*|phase|field ?map|b0|spectro\w*|mip|vessels?|cal|calibration"
IS_T1 = r"s?t1w?|mprage|mp2rage|rage|spgr|fspgr|bravo|tfe|vibe|flash|fl3d|ffe|tfl3d\w*"
AGENT = r"(?:gd|gad\w*|[ck]ontrast\w*|ce|m?km)"
# "Pre" and "post" are of the injection where nothing follows, or how the slices
# lie; "post" of anything else (processing, surgery) says nothing.
ALONE = r"(?= *$| (?:ax(?:ial)?|sag(?:ittal)?|cor(?:onal)?|tra|3d|fs|t1w?|mpr(?:age)?)(?![a-z0-9]))"
WITH = r"(?:s?t1w?)?(?:post|nach)? ?" + AGENT + r"|\+ c|c \+|post" + ALONE
WITHOUT = (r"(?:no|non|not|wo|without|pre|before|ohne|o|vor|sans|avant|sin|senza) ?(?:(?:iv|i v|any) )?" + AGENT + r"(?: " + AGENT + r")*"
           r"|(?:pre|wo|without)" + ALONE)
# An examination of both kinds, which says nothing of one series.
BOTH = (r"(?:w|with|mit) ?(?:and|und|\+)? ?(?:wo|without|ohne)(?: " + AGENT + r")?"
        r"|(?:wo|without|ohne) ?(?:and|und|\+)? ?(?:w|with|mit) " + AGENT +
        r"|pre ?(?:and|und|\+)? ?post(?: " + AGENT + r")?")


def whole(pattern):
    return r"(?<![a-z0-9])(?:" + pattern + r")(?![a-z0-9])"


def words(pattern, text):
    return re.search(whole(pattern), text.lower()) is not None


def contrasted(text):
    """Whether text says that a contrast agent was given; None if it says neither."""
    text = re.sub(whole("w ?/ ?o"), "without", str(text or "").lower())
    text = re.sub(r"[^a-z0-9+]+", " ", text.replace("+", " + "))
    text = re.sub(whole(BOTH), " ", text)
    rest = re.sub(whole(WITHOUT), " ", text)
    if words(WITH, rest):
        return True
    return None if rest == text else False


def number(tags, name):
    try:
        return float(str(tags.get(name, "")).split("\\")[0])
    except ValueError:
        return None


def is_t1(tags, slices):
    """Raises LeftAlone unless tags are those of a T1-weighted volume of a head.

    Where tags tell neither way the series passes: the service looks at the
    image itself."""
    if tags.get("Modality") != "MR" or tags.get("SOPClassUID", MR_IMAGE_STORAGE[0]) not in MR_IMAGE_STORAGE:
        raise LeftAlone("not an MR image")
    kind = str(tags.get("ImageType", "")).upper().split("\\")
    if "DERIVED" in kind or "SECONDARY" in kind:
        raise LeftAlone("derived from other images")
    if any(k in kind for k in ("LOCALIZER", "PROJECTION IMAGE", "MIP", "MPR", "P", "PHASE", "PHASE MAP")):
        raise LeftAlone("image type " + "/".join(kind))
    part = str(tags.get("BodyPartExamined", "")).upper()
    if part and not any(p in part for p in ("HEAD", "BRAIN", "SKULL", "NEURO")):
        raise LeftAlone("body part " + part)
    description = " ".join(str(tags.get(n, "")) for n in ("SeriesDescription", "ProtocolName", "SequenceName"))
    description = re.sub(r"[_\-./*]", " ", description)
    t1 = words(IS_T1, description)
    # "t1 flair" is not what is wanted either. MPR is Siemens' MPRAGE too, and
    # ASSET GE's parallel imaging: alone a reformat, and a calibration.
    if words(NOT_T1 if t1 else NOT_T1 + "|mpr|asset", description):
        raise LeftAlone("described as another series: " + description.strip()[:60])
    if str(tags.get("MRAcquisitionType", "3D")).upper() == "2D":
        raise LeftAlone("two-dimensional acquisition")
    if slices < FEWEST_SLICES and "NumberOfFrames" not in tags:
        raise LeftAlone("%d slices, a head in 3-D has %d and more" % (slices, FEWEST_SLICES))
    if not t1:
        echo, repetition, inversion = number(tags, "EchoTime"), number(tags, "RepetitionTime"), number(tags, "InversionTime")
        if echo is not None and echo > 15:
            raise LeftAlone("echo time %g ms is not that of a T1" % echo)
        # An inversion much longer than white matter's is that of FLAIR.
        if inversion is not None and inversion > 1500:
            raise LeftAlone("inversion time %g ms is not that of a T1" % inversion)
        if repetition is not None and repetition > 3500:
            raise LeftAlone("repetition time %g ms is not that of a T1" % repetition)


def date(value):
    m = re.fullmatch(r"(\d{4})[.-]?(\d{2})[.-]?(\d{2})", str(value or "").strip())
    return "-".join(m.groups()) if m else None


def metadata(tags, instances):
    """What the service is told: only what it asks for, no name and no text."""
    m = {"modality": "T1w"}
    # Without a PatientID nobody knows who it is: a person of this study only.
    m["subject_id"] = str(tags.get("PatientID", "")).strip() or str(tags.get("StudyInstanceUID", "")).strip()
    sex = str(tags.get("PatientSex", "")).strip().upper()
    m["sex"] = sex if sex in ("F", "M") else ""  # the service refuses the scan for it, where it is seen
    scan_date = next(filter(None, (date(tags.get(n)) for n in ("AcquisitionDate", "SeriesDate", "StudyDate"))), None)
    if scan_date:
        m["scan_date"] = scan_date
    birth_date = date(tags.get("PatientBirthDate"))
    age = re.fullmatch(r"(\d{3})Y", str(tags.get("PatientAge", "")).strip())
    if birth_date and scan_date:
        m["birth_date"] = birth_date  # the service keeps the age only
    elif age:
        m["age_years"] = float(age.group(1))
    field = number(tags, "MagneticFieldStrength")
    if field:
        field = field / 10000 if field > 100 else field  # some write gauss
        if 0.05 <= field <= 12:
            m["field_strength_t"] = field
    for name, tag, most in (("manufacturer", "Manufacturer", 100), ("scanner", "ManufacturerModelName", 100), ("accession_number", "AccessionNumber", 200)):
        value = "".join(c for c in str(tags.get(tag, "")) if c.isprintable()).strip()[:most]
        if value:
            m[name] = value
    # The protocol may be that of the whole examination.
    described = next((c for c in (contrasted(tags.get(n)) for n in ("SeriesDescription", "ProtocolName")) if c is not None), False)
    agent = str(tags.get("ContrastBolusAgent", "")).strip()
    if described or agent and agent.upper() not in ("NO", "NONE") and contrasted(agent) is not False:
        m["contrast_agent"] = True
    for name, tag in (("study_instance_uid", "StudyInstanceUID"), ("series_instance_uid", "SeriesInstanceUID"), ("frame_of_reference_uid", "FrameOfReferenceUID")):
        if tags.get(tag):
            m[name] = tags[tag]
    m["sop_instance_uids"] = instances
    return m


def convert(folder):
    """One NIfTI file of the DICOM files in folder, and its bytes."""
    out = os.path.join(folder, "out")
    os.mkdir(out)
    # No compression: gzip's bytes would differ each time, and with them the
    # identity of the scan.
    try:
        run = subprocess.run(["dcm2niix", "-b", "n", "-z", "n", "-i", "n", "-m", "y", "-f", "image", "-o", out, folder],
                             stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=CONVERT_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        raise Impossible("dcm2niix made no image of it in %g s" % CONVERT_SECONDS, "no-image") from None
    files = sorted(f for f in os.listdir(out) if f.endswith(".nii"))
    # With slices at uneven distances or a tilted gantry, the resampled image
    # is the one whose geometry a NIfTI header can tell.
    files = [f for f in files if f.endswith(("_Eq.nii", "_Tilt.nii"))] or files
    if run.returncode != 0 or not files:
        raise Impossible("dcm2niix made no image of it: exit %d" % run.returncode, "no-image")
    if len(files) > 1:
        raise LeftAlone("the series holds %d images; which one is meant is not clear" % len(files))
    with open(os.path.join(out, files[0]), "rb") as f:
        return f.read()


def post(image, m):
    """Posts the image; returns the scan's id, and why it was refused if it was
    at once. Raises OSError while the service cannot take it."""
    packed = gzip.compress(image, 1, mtime=0)
    boundary = uuid.uuid4().hex
    body = b"".join((
        ("--%s\r\nContent-Disposition: form-data; name=\"metadata\"\r\nContent-Type: application/json\r\n\r\n" % boundary).encode(),
        json.dumps(m).encode(),
        ("\r\n--%s\r\nContent-Disposition: form-data; name=\"scan\"; filename=\"scan.nii.gz\"\r\nContent-Type: application/gzip\r\n\r\n" % boundary).encode(),
        packed, ("\r\n--%s--\r\n" % boundary).encode()))
    scan = send("/v1/scans", body, {
        "Content-Type": "multipart/form-data; boundary=" + boundary,
        # What is missing is told to people, not to this script.
        "Prefer": "handling=lenient",
        "Idempotency-Key": "orthanc-" + hashlib.sha256(packed + json.dumps(m, sort_keys=True).encode()).hexdigest()})
    why = "; ".join(r["text"] for r in scan["reasons"]) if scan["state"] == "refused" else ""
    return scan["id"] + (", refused: " + why if why else "")


def refuse(m, code):
    """Has the series stand in the worklist as refused; returns the scan's id."""
    return send("/v1/refusals", json.dumps({"metadata": m, "code": code}).encode(), {"Content-Type": "application/json"})["id"]


def send(path, body, headers):
    """The service's answer. Raises OSError while it cannot take the request,
    and Impossible when it never will."""
    request = urllib.request.Request(SERVER + path, data=body, headers={"Authorization": "Bearer " + read(KEY_FILE), **headers})
    try:
        with urllib.request.urlopen(request, timeout=300) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as e:
        try:
            problem = json.load(e)
        except ValueError:
            problem = {}
        says = "%s: %s" % (problem.get("type", "/problems/?").rsplit("/", 1)[-1], problem.get("detail", e.reason))
        # A key that is wrong, a full disk and a service that is busy or away
        # can be cured; a file or metadata that are refused cannot.
        if e.code in (400, 413, 415, 422):
            raise Impossible("refused: " + says, "image-not-taken") from None
        raise OSError("the service answers %d, %s" % (e.code, says)) from None


def orthanc_get(path):
    return json.loads(orthanc.RestApiGet(path))


def orthanc_post(path, body):
    return json.loads(orthanc.RestApiPost(path, json.dumps(body)))


def handle(series):
    """Decides on one series of Orthanc's and returns the decision."""
    info = orthanc_get("/series/" + series)
    first = info["Instances"][0]
    tags = orthanc_get("/instances/%s/simplified-tags" % first)
    try:
        is_t1(tags, len(info["Instances"]))
        ordered = [i.split("/")[-1] if i.startswith("/") else i for i in info["Instances"]]
        uids = [orthanc_get("/instances/" + i)["MainDicomTags"]["SOPInstanceUID"] for i in ordered]
        m = metadata(tags, sorted(uids, key=lambda u: [int(p) for p in u.split(".")]))
        with tempfile.TemporaryDirectory(prefix="neuroscreen-") as folder:  # mode 0700
            for n, i in enumerate(ordered):
                with open(os.path.join(folder, "%06d.dcm" % n), "wb") as f:
                    f.write(orthanc.RestApiGet("/instances/%s/file" % i))
            image = convert(folder)
        return "posted: " + post(image, m)
    except LeftAlone as e:
        return "left alone: %s" % e
    except Impossible as e:
        try:
            return "impossible: %s (in the worklist: %s)" % (e, refuse(m, e.code))
        except Impossible as again:  # what is said of the series is at fault
            return "impossible: %s (and not in the worklist: %s)" % (e, again)


waiting = queue.Queue()


def work():
    while True:
        series = waiting.get()
        if series is None:
            return
        try:
            decision = handle(series)
            orthanc.RestApiPut("/series/%s/metadata/%s" % (series, DECISION), decision.encode())
            say = orthanc.LogError if decision.startswith("impossible") else orthanc.LogWarning
            say("NeuroScreen: series %s %s" % (series, decision))
        except Exception as e:  # one series must not keep the others waiting
            if gone(series):
                orthanc.LogWarning("NeuroScreen: series %s was deleted meanwhile" % series)
                continue
            orthanc.LogError("NeuroScreen: series %s waits: %s" % (series, e))
            again = threading.Timer(RETRY_SECONDS, waiting.put, [series])
            again.daemon = True
            again.start()


def gone(series):
    try:
        orthanc.RestApiGet("/series/" + series)
        return False
    except orthanc.OrthancException as e:
        return e.args[0] == orthanc.ErrorCode.UNKNOWN_RESOURCE


def decided(series):
    try:
        orthanc.RestApiGet("/series/%s/metadata/%s" % (series, DECISION))
        return True
    except orthanc.OrthancException:
        return False


def read(file):
    with open(file) as f:
        return f.read().strip()


def signed(headers, body):
    """Whether a message is the service's own and new (Standard Webhooks)."""
    at = headers.get("Webhook-Timestamp", "")
    if not at.isdigit() or abs(time.time() - int(at)) > 300:
        return False
    key = base64.b64decode(read(SECRET_FILE).removeprefix("whsec_"))
    text = ("%s.%s." % (headers.get("Webhook-Id", ""), at)).encode() + body
    want = "v1," + base64.b64encode(hmac.new(key, text, hashlib.sha256).digest()).decode()
    return any(hmac.compare_digest(want.encode(), s.encode()) for s in headers.get("Webhook-Signature", "").split())


def keep(stored, scan):
    """Notes of which scan something is that Orthanc has just stored."""
    orthanc.RestApiPut("/series/%s/metadata/%s" % (stored["ParentSeries"], RESULT), scan.encode())
    return stored["ID"]


def kept(scan, modality):
    """Orthanc's instances of a scan's results (SR\\SEG) or rejection notes (KO)."""
    query = {"Level": "Series", "Query": {"Modality": modality, "SeriesDescription": "NeuroScreen*"}}
    found = []
    for series in orthanc_post("/tools/find", query):
        try:
            if orthanc.RestApiGet("/series/%s/metadata/%s" % (series, RESULT)).decode() == scan:
                found += orthanc_get("/series/" + series)["Instances"]
        except orthanc.OrthancException:
            pass  # somebody else's
    return found


def reject(instances):
    """Makes a rejection note of instances (IHE IOCM, DICOM TID 2010) in their
    study. Its title is that of what a PACS should hide: dcm4chee goes on showing
    what is rejected for quality reasons."""
    series, items = {}, []
    for i in instances:
        sop_class = orthanc.RestApiGet("/instances/%s/metadata/SopClassUid" % i).decode()
        reference = {"ReferencedSOPClassUID": sop_class, "ReferencedSOPInstanceUID": orthanc_get("/instances/" + i)["MainDicomTags"]["SOPInstanceUID"]}
        series.setdefault(orthanc_get("/instances/%s/series" % i)["MainDicomTags"]["SeriesInstanceUID"], []).append(reference)
        items.append({"RelationshipType": "CONTAINS", "ValueType": "IMAGE" if sop_class == SEGMENTATION_STORAGE else "COMPOSITE",
                      "ReferencedSOPSequence": [reference]})
    study = orthanc_get("/instances/%s/study" % instances[0])
    return orthanc_post("/tools/create-dicom", {"Parent": study["ID"], "Tags": {
        "SOPClassUID": KEY_OBJECT_SELECTION, "Modality": "KO", "SeriesDescription": "NeuroScreen rejection note", "SeriesNumber": "9903",
        "InstanceNumber": "1", "ContentDate": time.strftime("%Y%m%d"), "ContentTime": time.strftime("%H%M%S"), "Manufacturer": "NeuroScreen",
        "ReferencedPerformedProcedureStepSequence": [],
        "CurrentRequestedProcedureEvidenceSequence": [{"StudyInstanceUID": study["MainDicomTags"]["StudyInstanceUID"], "ReferencedSeriesSequence": [
            {"SeriesInstanceUID": uid, "ReferencedSOPSequence": references} for uid, references in series.items()]}],
        "ValueType": "CONTAINER", "ContinuityOfContent": "SEPARATE",
        "ConceptNameCodeSequence": [{"CodeValue": "113037", "CodingSchemeDesignator": "DCM", "CodeMeaning": "Rejected for Patient Safety Reasons"}],
        "ContentTemplateSequence": [{"MappingResource": "DCMR", "TemplateIdentifier": "2010"}], "ContentSequence": items}})


def fetch(path):
    """The service's answer, None where there is nothing that counts."""
    request = urllib.request.Request(SERVER + path, headers={"Authorization": "Bearer " + read(RESULTS_KEY_FILE)})
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.read()
    except urllib.error.HTTPError as e:
        if e.code in (404, 409):  # erased, withdrawn, or not from a study
            return None
        raise OSError("the service answers %d for %s" % (e.code, path)) from None


def settle(scan):
    """Makes what Orthanc has of a scan's results what the service says now:
    messages may come late, twice or in another order. Returns what was done."""
    case = fetch("/v1/cases/" + scan)
    objects = []
    # Amended, it stands with the comment: had structures been left out, the
    # case would be open again.
    if case and json.loads(case).get("decision", {}).get("decision") in ("accept", "amend"):
        objects = [fetch("/v1/scans/%s/%s" % (scan, name)) for name in ("seg.dcm", "sr.dcm")]
    if None in objects:
        objects = []
    stands = [keep(json.loads(orthanc.RestApiPost("/instances", o)), scan) for o in objects]
    old = [i for i in kept(scan, "SR\\SEG") if i not in stands]
    if old and REJECT_AT:
        keep(reject(old), scan)
    for i in old:
        orthanc.RestApiDelete("/instances/" + i)
    if stands and SEND_TO:
        orthanc_post("/modalities/%s/store" % SEND_TO, stands)
    # Notes stay until they are sent, also when a message is the last.
    notes = kept(scan, "KO") if REJECT_AT else []
    if notes:
        orthanc_post("/modalities/%s/store" % REJECT_AT, notes)
    for i in notes:
        orthanc.RestApiDelete("/instances/" + i)
    done = "%d objects stand" % len(stands) + (", sent to " + SEND_TO if stands and SEND_TO else "") + ", %d deleted" % len(old)
    if REJECT_AT:
        return done + ", %d rejection notes sent to %s" % (len(notes), REJECT_AT)
    return done + ("; delete them at %s too" % SEND_TO if old and SEND_TO else "")


class Notices(http.server.BaseHTTPRequestHandler):
    one = threading.Lock()  # at a time, so that what was asked last is what stays
    timeout = 30

    def do_POST(self):
        length = self.headers.get("Content-Length", "")
        if not length.isdigit() or int(length) > 1 << 20:
            return self.answer(413)
        body = self.rfile.read(int(length))
        if not signed(self.headers, body):
            return self.answer(401)
        try:
            with self.one:
                scan = str(uuid.UUID(json.loads(body)["data"]["scan_id"]))
                orthanc.LogWarning("NeuroScreen: scan %s: %s" % (scan, settle(scan)))
        except Exception as e:  # the service sends it again
            orthanc.LogError("NeuroScreen: a message waits to be sent again: %s" % e)
            return self.answer(503)
        self.answer(204)

    def answer(self, status):
        self.send_response_only(status)
        self.send_header("Connection", "close")
        self.end_headers()

    def log_message(self, *_):
        pass


def listen():
    host, _, port = LISTEN.rpartition(":")
    threading.Thread(target=http.server.ThreadingHTTPServer((host, int(port)), Notices).serve_forever, daemon=True).start()


def on_change(change, level, resource):
    if change == orthanc.ChangeType.ORTHANC_STARTED:
        threading.Thread(target=work, daemon=True).start()
        if SECRET_FILE:
            listen()
        for series in orthanc_get("/series"):
            if not decided(series) and orthanc_get("/series/" + series)["IsStable"]:
                waiting.put(series)
    elif change == orthanc.ChangeType.STABLE_SERIES:
        # Also for one that was decided on when only a part had come: the
        # service knows the same image again.
        waiting.put(resource)
    elif change == orthanc.ChangeType.ORTHANC_STOPPED:
        waiting.put(None)


try:
    import orthanc  # given by the plug-in

    orthanc.RegisterOnChangeCallback(on_change)
except ModuleNotFoundError:
    pass  # read by a test
