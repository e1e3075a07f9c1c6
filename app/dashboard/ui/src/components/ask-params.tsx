import { Button, Group, Stack } from "@mantine/core";
import { useQuery } from "@tanstack/react-query";
import { lazy, Suspense, useState } from "react";
import { useTranslation } from "react-i18next";

import type { JsonObject } from "../api/actions";
import { messageOf } from "../api/client";
import { executorsQuery } from "../api/queries";
import { jsonOf } from "../json";
import { Failure, Loading } from "./feedback";
import { useRefusal } from "./refusal";
import { DraftModal } from "./unsent";

const ParamsForm = lazy(() => import("./params-form"));

interface Props {
  opened: boolean;
  title: string;
  taskType: string;
  params: JsonObject;
  onClose: () => void;
  submit: (params: JsonObject) => Promise<unknown>;
}

/** Ask for params before something runs; the server's errors stay in the form. */
export function AskParams({ opened, title, ...asked }: Props) {
  const [isDirty, setDirty] = useState(false);
  const leave = () => {
    setDirty(false);
    asked.onClose();
  };
  return (
    <DraftModal opened={opened} isDirty={isDirty} onClose={leave} title={title} size="lg">
      {(close) => <Asked {...asked} onClose={close} onSent={leave} onDirty={setDirty} />}
    </DraftModal>
  );
}

interface AskedProps extends Omit<Props, "opened" | "title"> {
  onSent: () => void;
  onDirty: (isDirty: boolean) => void;
}

function Asked({ taskType, params, onClose, submit, onSent, onDirty }: AskedProps) {
  const { t } = useTranslation();
  const executors = useQuery(executorsQuery);
  const [value, setValue] = useState(params);
  const [isValid, setValid] = useState(true);
  const [isBusy, setBusy] = useState(false);
  const { error, errors, refuse, forget } = useRefusal({ params: value });
  const elsewhere = error !== undefined && !Object.keys(errors).some((name) => name.startsWith("params"));

  const send = async () => {
    setBusy(true);
    forget();
    try {
      await submit(value);
      onSent();
    } catch (failure) {
      refuse(failure);
    } finally {
      setBusy(false);
    }
  };

  return (
    <Stack>
      {executors.data === undefined ? (
        <Loading />
      ) : (
        <Suspense fallback={<Loading />}>
          <ParamsForm
            executor={executors.data.find((item) => item.type === taskType)}
            value={value}
            onChange={(next) => {
              setValue(next);
              onDirty(jsonOf(next) !== jsonOf(params));
            }}
            onValid={setValid}
            errors={errors}
          />
        </Suspense>
      )}
      {elsewhere ? <Failure error={new Error(messageOf(error))} /> : null}
      <Group justify="flex-end">
        <Button variant="default" onClick={onClose}>{t("common.close")}</Button>
        <Button loading={isBusy} disabled={!isValid} onClick={() => void send()}>{t("tasks.run")}</Button>
      </Group>
    </Stack>
  );
}
