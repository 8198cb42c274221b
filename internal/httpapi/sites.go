package httpapi

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"

	"neuroscreen"
	"neuroscreen/internal/norm"
	"neuroscreen/internal/pipeline"
	"neuroscreen/internal/store"
)

// ListSites answers with the key's own site: there is no other for it.
func (s *Server) ListSites(ctx context.Context, _ ListSitesRequestObject) (ListSitesResponseObject, error) {
	site, err := s.cfg.Store.Site(ctx, siteID(ctx))
	if err != nil {
		return nil, err
	}
	now, err := s.cfg.Store.CurrentSettings(ctx, site.ID)
	if err != nil {
		return nil, err
	}
	return ListSites200JSONResponse{Sites: []Site{{Name: site.Name, CreatedAt: site.Created.UTC(), SettingsVersion: now.Version}}}, nil
}

// ownSite refuses any name but that of the key's site, as if there were none.
func (s *Server) ownSite(ctx context.Context, name string) error {
	site, err := s.cfg.Store.Site(ctx, siteID(ctx))
	if err != nil {
		return err
	}
	if site.Name != name {
		return neuroscreen.Errorf(neuroscreen.CodeNotFound, "site-not-found", "your key belongs to no such site")
	}
	return nil
}

func (s *Server) GetSiteSettings(ctx context.Context, req GetSiteSettingsRequestObject) (GetSiteSettingsResponseObject, error) {
	if err := s.ownSite(ctx, req.Site); err != nil {
		return nil, err
	}
	v, err := s.settingsAt(ctx, req.Params.Version)
	if err != nil {
		return nil, err
	}
	out, err := siteSettings(req.Site, v)
	return GetSiteSettings200JSONResponse(out), err
}

// settingsAt returns one version of the site's settings, the newest for nil.
func (s *Server) settingsAt(ctx context.Context, version *int) (store.SiteSettings, error) {
	if version == nil {
		return s.cfg.Store.CurrentSettings(ctx, siteID(ctx))
	}
	return s.cfg.Store.SettingsVersion(ctx, siteID(ctx), *version)
}

func (s *Server) PutSiteSettings(ctx context.Context, req PutSiteSettingsRequestObject) (PutSiteSettingsResponseObject, error) {
	out, err := s.changeSettings(ctx, req.Site, req.Body.Replaces, req.Body.Note, func(now *pipeline.Settings) {
		keep := now.Model.Recalibrations
		now.Model = req.Body.Settings
		now.Model.Recalibrations = keep
	})
	return PutSiteSettings200JSONResponse(out), err
}

func (s *Server) PutSiteCalibration(ctx context.Context, req PutSiteCalibrationRequestObject) (PutSiteCalibrationResponseObject, error) {
	out, err := s.changeSettings(ctx, req.Site, req.Body.Replaces, req.Body.Note, func(now *pipeline.Settings) {
		now.SiteShift = req.Body.SiteShift
		now.Model.Recalibrations = req.Body.Recalibrations
	})
	return PutSiteCalibration200JSONResponse(out), err
}

// changeSettings makes the next version of the site's settings from the one
// that the caller has looked at.
func (s *Server) changeSettings(ctx context.Context, site string, replaces int, note string, change func(*pipeline.Settings)) (SiteSettings, error) {
	if err := s.ownSite(ctx, site); err != nil {
		return SiteSettings{}, err
	}
	old, err := s.cfg.Store.SettingsVersion(ctx, siteID(ctx), replaces)
	if e, ok := errors.AsType[*neuroscreen.Error](err); ok && e.Code == neuroscreen.CodeNotFound {
		return SiteSettings{}, neuroscreen.FieldErrorf(neuroscreen.CodeConflict, "settings-changed", "replaces", "there is no version %d to replace", replaces)
	} else if err != nil {
		return SiteSettings{}, err
	}
	now, err := pipeline.ParseSettings(old.Settings)
	if err != nil {
		return SiteSettings{}, fmt.Errorf("stored settings, version %d: %v", old.Version, err) // ours, not the client's
	}
	change(&now)
	if err := cmp.Or(now.Validate(), now.Model.Reachable()); err != nil {
		return SiteSettings{}, err
	}
	b, err := json.Marshal(now)
	if err != nil {
		return SiteSettings{}, err
	}
	added, err := s.cfg.Store.AddSettings(ctx, siteID(ctx), actor(ctx), replaces, b, note)
	if err != nil {
		return SiteSettings{}, err
	}
	return siteSettings(site, added)
}

// siteSettings is what a client sees of one version.
func siteSettings(site string, v store.SiteSettings) (SiteSettings, error) {
	parsed, err := pipeline.ParseSettings(v.Settings)
	if err != nil {
		return SiteSettings{}, fmt.Errorf("stored settings, version %d: %v", v.Version, err)
	}
	out := SiteSettings{Site: site, Version: v.Version, SiteShift: parsed.SiteShift, Recalibrations: orEmpty(parsed.Model.Recalibrations)}
	parsed.Model.Recalibrations = nil // shown beside
	out.Settings, out.Effective = parsed.Model, parsed.Model.WithDefaults()
	if v.Version > 0 {
		out.Made = ptr(settingsVersion(v))
	}
	return out, nil
}

func settingsVersion(v store.SiteSettings) SettingsVersion {
	return SettingsVersion{Version: v.Version, At: v.Created.UTC(), By: string(v.By), Note: v.Note}
}

// ListSiteSettings pages by version; the cursor is the last one shown.
func (s *Server) ListSiteSettings(ctx context.Context, req ListSiteSettingsRequestObject) (ListSiteSettingsResponseObject, error) {
	if err := s.ownSite(ctx, req.Site); err != nil {
		return nil, err
	}
	before, most := 0, val(req.Params.Limit)
	if most == 0 {
		most = defaultPage
	}
	if req.Params.Cursor != nil {
		n, err := strconv.ParseInt(*req.Params.Cursor, 10, 32)
		if err != nil || n < 1 {
			return nil, neuroscreen.FieldErrorf(neuroscreen.CodeInvalid, "invalid-value", "cursor", "take next_cursor from the page before, unchanged")
		}
		before = int(n)
	}
	found, err := s.cfg.Store.SettingsVersions(ctx, siteID(ctx), before, most+1)
	if err != nil {
		return nil, err
	}
	out := SettingsVersionList{Versions: []SettingsVersion{}}
	if len(found) > most {
		found = found[:most]
		out.NextCursor = ptr(strconv.Itoa(found[most-1].Version))
	}
	for _, v := range found {
		out.Versions = append(out.Versions, settingsVersion(v))
	}
	return ListSiteSettings200JSONResponse(out), nil
}

// calibration is how the service's own volumes meet the norm at the site under
// one version of its settings.
func (s *Server) calibration(ctx context.Context, version *int) (norm.Calibration, store.SiteSettings, error) {
	v, err := s.settingsAt(ctx, version)
	if err != nil {
		return norm.Calibration{}, v, err
	}
	parsed, err := pipeline.ParseSettings(v.Settings)
	if err != nil {
		return norm.Calibration{}, v, fmt.Errorf("stored settings, version %d: %v", v.Version, err)
	}
	cal, err := parsed.Calibration()
	return cal, v, err
}

func (s *Server) GetNormCurve(ctx context.Context, req GetNormCurveRequestObject) (GetNormCurveResponseObject, error) {
	p := req.Params
	from, to, step := norm.MinAge, norm.MaxAge, 1.0
	for _, f := range []struct {
		into  *float64
		given *float64
	}{{&from, p.FromAge}, {&to, p.ToAge}, {&step, p.Step}} {
		if f.given != nil {
			*f.into = *f.given
		}
	}
	if from > to {
		return nil, neuroscreen.FieldErrorf(neuroscreen.CodeInvalid, "invalid-value", "from_age", "lies after to_age")
	}
	cal, settings, err := s.calibration(ctx, p.SettingsVersion)
	if err != nil {
		return nil, err
	}
	cal.Scanner = norm.ScannerOf(neuroscreen.Metadata{Scanner: val(p.Scanner), Manufacturer: val(p.Manufacturer), FieldStrengthT: p.FieldStrengthT})
	norms := norm.Default()
	points, err := norms.Curve(p.Structure, norm.Person{Sex: p.Sex, ICVMM3: &p.IntracranialVolumeMm3}, cal, from, to, step)
	if err != nil {
		return nil, neuroscreen.FieldErrorf(neuroscreen.CodeNotFound, "no-norm", "structure",
			"the norm has no curve of this structure for the network's volumes; name one whose expected_mm3 in a result is not null")
	}
	out := NormCurve{Structure: p.Structure, Sex: p.Sex, IntracranialVolumeMm3: p.IntracranialVolumeMm3, SettingsVersion: settings.Version,
		AdjustsForSex: norms.AdjustsForSex(p.Structure), Norms: pipeline.NormAssets(norms, cal.SiteShift), Points: []NormPoint{}}
	for _, c := range points {
		out.Points = append(out.Points, NormPoint{AgeYears: c.AgeYears, ExpectedMm3: c.ExpectedMM3, P5Mm3: c.P5MM3, P95Mm3: c.P95MM3})
	}
	return GetNormCurve200JSONResponse(out), nil
}
