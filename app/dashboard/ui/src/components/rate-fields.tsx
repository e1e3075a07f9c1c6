import { NumberInput, TextInput } from "@mantine/core";
import { useTranslation } from "react-i18next";

import type { JsonObject } from "../api/actions";
import type { Task } from "../api/client";
import { numberOf, type Typed } from "./typed-number";

/** A rate limit as it is typed; without a limit there is none. */
export interface RateDraft {
  limit: Typed;
  per_seconds: Typed;
  burst: Typed;
  key: string;
}

export const unlimited: RateDraft = { limit: null, per_seconds: null, burst: null, key: "" };

export function rateDraftOf({ rate_limit }: Task): RateDraft {
  return rate_limit == null ? unlimited : { limit: rate_limit.limit, per_seconds: rate_limit.per_seconds, burst: rate_limit.burst ?? null, key: rate_limit.key ?? "" };
}

/** The draft as the API takes it; null: no limit. */
export function rateLimitOf({ limit, per_seconds, burst, key }: RateDraft): JsonObject | null {
  const most = numberOf(limit);
  return most === null ? null : { limit: most, per_seconds: numberOf(per_seconds) ?? 1, burst: numberOf(burst), key: key.trim() || null };
}

interface Props {
  draft: RateDraft;
  onChange: (changes: Partial<RateDraft>) => void;
  errors: Record<string, string>;
}

export function RateFields({ draft, onChange, errors }: Props) {
  const { t } = useTranslation();
  const isUnlimited = numberOf(draft.limit) === null;
  const number = (field: "limit" | "per_seconds" | "burst") => ({
    value: draft[field] ?? "",
    onChange: (value: string | number) => onChange({ [field]: value }),
    error: errors[`rate_limit.${field}`],
    disabled: field !== "limit" && isUnlimited,
  });
  return (
    <>
      <NumberInput label={t("rate.limit")} {...number("limit")} error={errors["rate_limit.limit"] ?? errors.rate_limit} />
      <NumberInput label={t("rate.perSeconds")} placeholder="1" {...number("per_seconds")} />
      <NumberInput label={t("rate.burst")} {...number("burst")} />
      <TextInput label={t("rate.key")} value={draft.key} onChange={(event) => onChange({ key: event.currentTarget.value })} error={errors["rate_limit.key"]} disabled={isUnlimited} />
    </>
  );
}
