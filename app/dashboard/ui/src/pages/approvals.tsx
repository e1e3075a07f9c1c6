import { Button, Group, Stack, Text } from "@mantine/core";
import { useInfiniteQuery } from "@tanstack/react-query";
import { Link } from "@tanstack/react-router";
import { useTranslation } from "react-i18next";

import type { Schemas } from "../api/client";
import { approvalsQuery } from "../api/queries";
import { Decision } from "../components/decision";
import { Loaded } from "../components/feedback";
import { Page, Section } from "../components/page";
import { Ago } from "../components/time";

export default function Approvals() {
  const { t } = useTranslation();
  const found = useInfiniteQuery(approvalsQuery);
  const questions = found.data?.pages.flatMap((page) => page.items) ?? [];
  return (
    <Page title={t("approvals.title")}>
      <Loaded query={found} none={questions.length === 0 ? t("approvals.empty") : null}>
        {() => (
          questions.map((question) => <Question key={question.execution_id} question={question} />)
        )}
      </Loaded>
      {found.hasNextPage ? (
        <Button variant="default" loading={found.isFetchingNextPage} onClick={() => void found.fetchNextPage()}>{t("common.more")}</Button>
      ) : null}
    </Page>
  );
}

function Question({ question }: { question: Schemas["QuestionAnswer"] }) {
  const { t } = useTranslation();
  return (
    <Section
      title={question.title}
      aside={<Link className="link number" to="/executions/$id" params={{ id: question.execution_id }}>#{question.execution_id}</Link>}
    >
      <Group gap="md">
        <Text size="sm" c="dimmed" component="div">{t("approvals.asked")} <Ago at={question.asked_at} /></Text>
        {question.expires_at === null ? null : (
          <Text size="sm" c="dimmed" component="div">
            {t("approvals.expires")} <Ago at={question.expires_at} /> · {t(`approvals.on_${question.on_timeout}` as "approvals.on_fail", { defaultValue: question.on_timeout })}
          </Text>
        )}
        {question.workflow_id === null ? null : (
          <Text size="sm" c="dimmed" component="div">
            {t("approvals.stepOf", { step: question.step ?? "" })} <Link className="link" style={{ textDecoration: "underline" }} to="/executions/$id" params={{ id: question.workflow_id }}>#{question.workflow_id}</Link>
          </Text>
        )}
        {question.approvers.length > 0 ? <Text size="sm" c="dimmed">{t("approvals.approvers", { names: question.approvers.join(", ") })}</Text> : null}
      </Group>
      {question.details ? <Text size="sm" className="wrap" style={{ whiteSpace: "pre-wrap" }}>{question.details}</Text> : null}
      <Stack maw={560}><Decision id={question.execution_id} title={question.title} approvers={question.approvers} /></Stack>
    </Section>
  );
}
