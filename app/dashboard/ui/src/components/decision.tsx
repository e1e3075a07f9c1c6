import { Button, Group, Stack, Textarea } from "@mantine/core";
import { IconCheck, IconX } from "@tabler/icons-react";
import { useState } from "react";
import { useTranslation } from "react-i18next";

import { decideApproval } from "../api/actions";
import { useAct } from "./act";
import { useMay, useSession } from "./session";

/** The API's. No `maxLength`: a browser cuts off what is pasted, and says nothing. */
const LONGEST_COMMENT = 2000;

/** Says yes or no to an approval that waits; once. */
export function Decision({ id, title, approvers }: { id: number; title: string; approvers: string[] }) {
  const { t } = useTranslation();
  const { name } = useSession();
  const isOperator = useMay("operator");
  const isAdmin = useMay("admin");
  const mayDecide = isOperator && (isAdmin || approvers.length === 0 || approvers.includes(name));
  const [comment, setComment] = useState("");
  const decide = useAct((approved: boolean) => decideApproval(id, { approved, comment }), {
    done: (execution) => t("approvals.decided", { id: execution.id }),
  });
  if (!mayDecide) return null;
  const isTooLong = comment.length > LONGEST_COMMENT;
  return (
    <Stack gap="xs">
      <Textarea label={t("approvals.comment")} value={comment} onChange={(event) => setComment(event.currentTarget.value)} error={isTooLong ? t("approvals.tooLong", { count: comment.length, longest: LONGEST_COMMENT }) : undefined} autosize minRows={2} />
      <Group gap="xs">
        <Button color="teal.9" leftSection={<IconCheck size={16} aria-hidden />} loading={decide.isPending} disabled={isTooLong} onClick={() => decide.mutate(true)} aria-label={`${t("approvals.approve")}: ${title}`}>{t("approvals.approve")}</Button>
        <Button variant="default" c="var(--mantine-color-error)" leftSection={<IconX size={16} aria-hidden />} loading={decide.isPending} disabled={isTooLong} onClick={() => decide.mutate(false)} aria-label={`${t("approvals.reject")}: ${title}`}>{t("approvals.reject")}</Button>
      </Group>
    </Stack>
  );
}
