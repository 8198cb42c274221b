package httpapi

import (
	"context"

	"neuroscreen"
	"neuroscreen/internal/store"
	"neuroscreen/internal/webhook"
)

func (s *Server) ListWebhooks(ctx context.Context, _ ListWebhooksRequestObject) (ListWebhooksResponseObject, error) {
	found, err := s.cfg.Store.Webhooks(ctx, siteID(ctx))
	if err != nil {
		return nil, err
	}
	out := WebhookList{Webhooks: make([]Webhook, len(found))}
	for n, w := range found {
		out.Webhooks[n] = webhookOf(w)
	}
	return ListWebhooks200JSONResponse(out), nil
}

func (s *Server) CreateWebhook(ctx context.Context, req CreateWebhookRequestObject) (CreateWebhookResponseObject, error) {
	if err := webhook.CheckURL(req.Body.URL); err != nil {
		return nil, neuroscreen.FieldErrorf(neuroscreen.CodeInvalid, "invalid-value", "url", "%v", err)
	}
	events := make([]string, len(req.Body.Events))
	for n, e := range req.Body.Events {
		events[n] = string(e)
	}
	secret := webhook.NewSecret()
	w, err := s.cfg.Store.CreateWebhook(ctx, siteID(ctx), actor(ctx), req.Body.URL, secret, events)
	if err != nil {
		return nil, err
	}
	return CreateWebhook201JSONResponse{Webhook: webhookOf(w), Secret: secret}, nil
}

func (s *Server) DeleteWebhook(ctx context.Context, req DeleteWebhookRequestObject) (DeleteWebhookResponseObject, error) {
	if err := s.cfg.Store.DeleteWebhook(ctx, siteID(ctx), actor(ctx), req.WebhookID); err != nil {
		return nil, err
	}
	return DeleteWebhook204Response{}, nil
}

func webhookOf(w store.Webhook) Webhook {
	out := Webhook{ID: w.ID, URL: w.URL, CreatedAt: w.Created.UTC(), DisabledAt: utcPtr(w.Disabled),
		LastAt: utcPtr(w.LastAt), LastStatus: w.LastStatus, LastError: w.LastError}
	for _, e := range w.Events {
		out.Events = append(out.Events, WebhookEvent(e))
	}
	return out
}
